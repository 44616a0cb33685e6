import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicLongArray;
import java.util.concurrent.atomic.LongAdder;
import java.util.concurrent.locks.LockSupport;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * Load generator for any server that speaks the RocketMQ remoting protocol, through the official Java client.
 * One JSON line per measured window. Options (all "--name value"):
 *   --ns HOST:PORT      name server                      --topic NAME       default bench_<scenario>_<body>
 *   --scenario sync|async|oneway|batch|paced|fill|consume|e2e|trace
 *   --body BYTES (1024) --threads N (1) --inflight N (256) --batch N (32) --rate N (1000, e2e and paced; oneway: unpaced unless given)
 *   --warm S (3) --secs S (6) --runs N (3) --count N (200000, fill/consume)
 *   --pids name=PID+PID,name=PID     processes whose CPU time and RSS are recorded
 *   --label TEXT        copied to the output             --poll MS          client's route poll interval
 */
public class Bench {
    static final Map<String, String> O = new HashMap<>();
    static String s(String k, String d) { return O.getOrDefault(k, d); }
    static int i(String k, int d) { return O.containsKey(k) ? Integer.parseInt(O.get(k)) : d; }

    static final class Hist {                     // log-linear, 64 steps per power of two (error < 1.6 %)
        final AtomicLongArray a = new AtomicLongArray(4096);
        final LongAdder n = new LongAdder();
        volatile long max;
        void add(long v) {
            if (v < 0) v = 0;
            int k;
            if (v < 64) k = (int) v;
            else { int e = 63 - Long.numberOfLeadingZeros(v); k = (e - 5) * 64 + (int) ((v >>> (e - 6)) & 63); }
            a.incrementAndGet(Math.min(k, 4095));
            n.increment();
            if (v > max) max = v;
        }
        double us(double q) {
            long t = n.sum(), c = 0;
            if (t == 0) return -1;
            long need = (long) Math.ceil(t * q);
            for (int k = 0; k < 4096; k++) {
                c += a.get(k);
                if (c >= need) {
                    if (k < 64) return k / 1000.0;
                    int e = k / 64 + 5; long sub = k % 64;
                    return ((1L << e) + ((sub + 1) << (e - 6))) / 1000.0;
                }
            }
            return max / 1000.0;
        }
    }

    static final LongAdder OK = new LongAdder(), ERR = new LongAdder(), NOTOK = new LongAdder(), SENT = new LongAdder();
    static volatile Hist hist = new Hist();
    static volatile boolean stop;
    static final Map<String, AtomicLong> errs = new java.util.concurrent.ConcurrentHashMap<>();

    static void err(Throwable t) {
        ERR.increment();
        String m = t.getClass().getSimpleName() + ":" + String.valueOf(t.getMessage());
        m = m.replaceAll("[^A-Za-z0-9 _:\\[\\]]", " ").replaceAll("[0-9]+", "#");
        if (m.length() > 70) m = m.substring(0, 70);
        errs.computeIfAbsent(m, k -> new AtomicLong()).incrementAndGet();
    }

    // ---- /proc
    static final Map<String, List<String>> PIDS = new LinkedHashMap<>();
    static double cpu(List<String> pids) {
        double t = 0;
        for (String p : pids) {
            try {
                String x = new String(Files.readAllBytes(Paths.get("/proc/" + p + "/stat")));
                String[] f = x.substring(x.lastIndexOf(')') + 2).split(" ");
                t += (Long.parseLong(f[11]) + Long.parseLong(f[12])) / 100.0;
            } catch (Exception e) { return Double.NaN; }
        }
        return t;
    }
    static double rssMb(List<String> pids, String key) {
        double t = 0;
        for (String p : pids) {
            try {
                for (String l : Files.readAllLines(Paths.get("/proc/" + p + "/status")))
                    if (l.startsWith(key)) t += Long.parseLong(l.replaceAll("[^0-9]", "")) / 1024.0;
            } catch (Exception e) { return Double.NaN; }
        }
        return t;
    }
    static double machine() {                      // CPU seconds used by everything on this machine, steal included
        try {
            String[] f = Files.readAllLines(Paths.get("/proc/stat")).get(0).trim().split("\\s+");
            double t = 0;
            for (int k = 1; k <= 8; k++) if (k != 4 && k != 5) t += Long.parseLong(f[k]);
            return t / 100.0;
        } catch (Exception e) { return Double.NaN; }
    }
    static final class Snap {
        final long t = System.nanoTime();
        final Map<String, Double> c = new LinkedHashMap<>();
        final double busy = machine();
        Snap() { for (Map.Entry<String, List<String>> e : PIDS.entrySet()) c.put(e.getKey(), cpu(e.getValue())); }
    }
    static String f(double d) { return Double.isNaN(d) ? "null" : String.format(Locale.ROOT, Math.abs(d) < 100 ? "%.2f" : "%.0f", d); }

    static void report(String scen, int run, Snap a, Snap b, long n, Hist h, String extra) {
        double secs = (b.t - a.t) / 1e9;
        StringBuilder o = new StringBuilder("{\"label\":\"" + s("label", "") + "\",\"scenario\":\"" + scen + "\",\"body\":" + i("body", 1024)
            + ",\"threads\":" + i("threads", 1) + ",\"inflight\":" + i("inflight", 256) + ",\"run\":" + run
            + ",\"secs\":" + f(secs) + ",\"msgs\":" + n + ",\"per_s\":" + f(n / secs));
        if (h != null && h.n.sum() > 0)
            o.append(",\"p50_us\":" + f(h.us(.5)) + ",\"p99_us\":" + f(h.us(.99)) + ",\"p999_us\":" + f(h.us(.999)) + ",\"max_us\":" + f(h.max / 1000.0));
        double other = b.busy - a.busy;
        for (String k : PIDS.keySet()) other -= b.c.get(k) - a.c.get(k);
        o.append(",\"cpu_s_other\":" + f(other));
        for (String k : PIDS.keySet()) {
            double d = b.c.get(k) - a.c.get(k);
            o.append(",\"cpu_s_" + k + "\":" + f(d) + ",\"cpu_us_per_msg_" + k + "\":" + f(n == 0 ? Double.NaN : d * 1e6 / n) + ",\"rss_mb_" + k + "\":" + f(rssMb(PIDS.get(k), "VmRSS:")) + ",\"anon_mb_" + k + "\":" + f(rssMb(PIDS.get(k), "RssAnon:")));
        }
        o.append(",\"err\":" + ERR.sum() + ",\"notok\":" + NOTOK.sum());
        if (!errs.isEmpty()) {
            o.append(",\"errs\":{");
            int c = 0;
            for (Map.Entry<String, AtomicLong> e : errs.entrySet()) { if (c++ > 0) o.append(','); o.append('"' + e.getKey() + "\":" + e.getValue()); if (c == 4) break; }
            o.append('}');
        }
        o.append(extra).append('}');
        System.out.println(o);
        System.out.flush();
    }

    static DefaultMQProducer producer() throws Exception {
        DefaultMQProducer p = new DefaultMQProducer("bench_p_" + System.nanoTime());
        p.setNamesrvAddr(s("ns", "127.0.0.1:9876"));
        p.setRetryTimesWhenSendAsyncFailed(0);
        if (O.containsKey("poll")) p.setPollNameServerInterval(i("poll", 30000));
        if (O.containsKey("timeout")) p.setSendMsgTimeout(i("timeout", 3000));
        p.setInstanceName("i" + System.nanoTime());
        p.start();
        return p;
    }
    static DefaultMQPushConsumer consumer(String group) {
        DefaultMQPushConsumer c = new DefaultMQPushConsumer(group);
        c.setNamesrvAddr(s("ns", "127.0.0.1:9876"));
        c.setInstanceName("c" + System.nanoTime());
        if (O.containsKey("poll")) c.setPollNameServerInterval(i("poll", 30000));
        return c;
    }
    static void ensureTopic(DefaultMQProducer p, String topic) throws Exception {
        long end = System.nanoTime() + 60_000_000_000L;
        Throwable last = null;
        while (System.nanoTime() < end) {
            try {
                SendResult r = p.send(new Message(topic, new byte[16]));
                if (r.getSendStatus() == SendStatus.SEND_OK) return;
                last = new RuntimeException(r.getSendStatus().toString());
            } catch (Exception e) { last = e; }
            Thread.sleep(100);
        }
        throw new RuntimeException("no ack in 60 s", last);
    }
    static long stored(DefaultMQProducer p, String topic) {
        try {
            long t = 0;
            for (MessageQueue q : p.fetchPublishMessageQueues(topic)) t += p.maxOffset(q);
            return t;
        } catch (Exception e) { return -1; }
    }
    static void mark(SendResult r, int n, long t0) {
        if (r.getSendStatus() == SendStatus.SEND_OK) OK.add(n); else NOTOK.add(n);
        hist.add(System.nanoTime() - t0);
    }

    public static void main(String[] a) throws Exception {
        for (int k = 0; k + 1 < a.length; k += 2) O.put(a[k].replaceFirst("^--", ""), a[k + 1]);
        for (String p : s("pids", "").split(",")) {
            if (p.isEmpty()) continue;
            String[] kv = p.split("=");
            PIDS.put(kv[0], List.of(kv[1].split("\\+")));
        }
        PIDS.put("client", List.of(String.valueOf(ProcessHandle.current().pid())));
        String scen = s("scenario", "sync");
        String topic = s("topic", "bench_" + scen + "_" + i("body", 1024));
        switch (scen) {
            case "sync": case "async": case "oneway": case "batch": case "paced": produce(scen, topic); break;
            case "fill": fill(topic); break;
            case "consume": consume(topic); break;
            case "e2e": e2e(topic); break;
            case "trace": trace(topic); break;
            default: throw new IllegalArgumentException(scen);
        }
        System.exit(0);
    }

    static void produce(String scen, String topic) throws Exception {
        DefaultMQProducer p = producer();
        ensureTopic(p, topic);
        final byte[] body = new byte[i("body", 1024)];
        java.util.Arrays.fill(body, (byte) 'x');
        List<Thread> ts = new ArrayList<>();
        final Semaphore sem = new Semaphore(i("inflight", 256));
        final int nb = i("batch", 32);
        final long base0 = System.nanoTime();
        for (int t = 0; t < i("threads", 1); t++) {
            Thread th = new Thread(() -> {
                while (!stop) {
                    try {
                        final long t0 = System.nanoTime();
                        switch (scen) {
                            case "sync": mark(p.send(new Message(topic, body)), 1, t0); break;
                            case "batch": {
                                List<Message> l = new ArrayList<>(nb);
                                for (int k = 0; k < nb; k++) l.add(new Message(topic, body));
                                mark(p.send(l), nb, t0);
                                break;
                            }
                            case "oneway":
                                if (O.containsKey("rate")) {          // unpaced, the Java client's outbound queue can exhaust its heap
                                    long at = base0 + (long) (SENT.sum() * 1e9 / i("rate", 1)), w;
                                    while ((w = at - System.nanoTime()) > 0) LockSupport.parkNanos(w);
                                }
                                p.sendOneway(new Message(topic, body)); SENT.increment(); hist.add(System.nanoTime() - t0); break;
                            case "paced": {                           // counted from the intended time; nothing holds the next send back
                                final long at = base0 + (long) (SENT.sum() * 1e9 / i("rate", 1000));
                                for (long w; (w = at - System.nanoTime()) > 0; ) LockSupport.parkNanos(w);
                                SENT.increment();
                                p.send(new Message(topic, body), new SendCallback() {
                                    public void onSuccess(SendResult r) { mark(r, 1, at); }
                                    public void onException(Throwable e) { err(e); }
                                });
                                break;
                            }
                            default: {
                                sem.acquire();
                                final long t1 = System.nanoTime();
                                try {
                                    p.send(new Message(topic, body), new SendCallback() {
                                        public void onSuccess(SendResult r) { sem.release(); mark(r, 1, t1); }
                                        public void onException(Throwable e) { sem.release(); err(e); }
                                    });
                                } catch (Exception e) { sem.release(); throw e; }
                            }
                        }
                    } catch (Exception e) { err(e); }
                }
            });
            th.setDaemon(true);
            ts.add(th);
            th.start();
        }
        Thread.sleep(1000L * i("warm", 3));
        for (int r = 1; r <= i("runs", 3); r++) {
            ERR.reset(); NOTOK.reset(); errs.clear();
            Hist h = new Hist();
            hist = h;
            long ok0 = OK.sum(), sent0 = SENT.sum();
            long st0 = scen.equals("oneway") ? stored(p, topic) : 0;
            Snap x = new Snap();
            Thread.sleep(1000L * i("secs", 6));
            Snap y = new Snap();
            long n = OK.sum() - ok0, sent = SENT.sum() - sent0;
            if (scen.equals("oneway")) {
                long st = stored(p, topic) - st0;
                report(scen, r, x, y, st, h, ",\"sent\":" + sent + ",\"note\":\"per_s = stored (max offset delta); latency = time in sendOneway\"");
            } else report(scen, r, x, y, n, h, "");
        }
        stop = true;
        for (Thread t : ts) t.join(5000);
        p.shutdown();
    }

    static void fill(String topic) throws Exception {
        DefaultMQProducer p = producer();
        ensureTopic(p, topic);
        long want = i("count", 200000);
        byte[] body = new byte[i("body", 1024)];
        Semaphore sem = new Semaphore(256);
        Snap x = new Snap();
        long have = stored(p, topic);
        while (have < want) {
            for (long k = have; k < want; k++) {
                sem.acquire();
                p.send(new Message(topic, body), new SendCallback() {
                    public void onSuccess(SendResult r) { sem.release(); OK.increment(); }
                    public void onException(Throwable e) { sem.release(); err(e); }
                });
            }
            sem.acquire(256);
            sem.release(256);
            Thread.sleep(300);
            have = stored(p, topic);
        }
        report("fill", 1, x, new Snap(), OK.sum(), null, ",\"stored\":" + have);
        p.shutdown();
    }

    static void consume(String topic) throws Exception {
        long want = i("count", 200000);
        for (int r = 1; r <= i("runs", 3); r++) {
            DefaultMQPushConsumer c = consumer("bench_c_" + System.nanoTime());
            c.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
            c.subscribe(topic, "*");
            AtomicLong n = new AtomicLong();
            AtomicLong first = new AtomicLong();
            Semaphore done = new Semaphore(0);
            c.registerMessageListener((MessageListenerConcurrently) (ms, ctx) -> {
                if (first.get() == 0) first.compareAndSet(0, System.nanoTime());
                long v = n.addAndGet(ms.size());
                if (v >= want && v - ms.size() < want) done.release();
                return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
            });
            Snap x = new Snap();
            c.start();
            boolean ok = done.tryAcquire(i("limit", 60), TimeUnit.SECONDS);
            Snap y = new Snap();
            double sinceFirst = (y.t - first.get()) / 1e9;
            report("consume", r, x, y, n.get(), null, ",\"complete\":" + ok + ",\"first_msg_after_ms\":" + f((first.get() - x.t) / 1e6) + ",\"per_s_since_first\":" + f(n.get() / sinceFirst));
            c.shutdown();
            Thread.sleep(500);
        }
    }

    static volatile long winStart = Long.MAX_VALUE, winEnd = Long.MAX_VALUE;
    static void e2e(String topic) throws Exception {
        DefaultMQProducer p = producer();
        ensureTopic(p, topic);
        DefaultMQPushConsumer c = consumer("bench_e_" + System.nanoTime());
        c.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET);
        c.subscribe(topic, "*");
        LongAdder got = new LongAdder();
        LongAdder any = new LongAdder();
        final Hist[] eh = {new Hist()};
        c.registerMessageListener((MessageListenerConcurrently) (ms, ctx) -> {
            long now = System.nanoTime();
            for (MessageExt m : ms) {
                any.increment();
                if (m.getBody().length < 24) continue;
                long t = ByteBuffer.wrap(m.getBody()).getLong();
                if (t >= winStart && t < winEnd) { eh[0].add(now - t); got.increment(); }
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        c.start();
        for (int k = 0; k < 300 && any.sum() == 0; k++) { ensureTopic(p, topic); Thread.sleep(50); }
        final double step = 1e9 / i("rate", 1000);
        final int len = i("body", 1024);
        Thread th = new Thread(() -> {
            long t0 = System.nanoTime();
            for (long k = 0; !stop; k++) {
                long at = t0 + (long) (k * step);
                long w;
                while ((w = at - System.nanoTime()) > 0) LockSupport.parkNanos(w);
                byte[] b = new byte[len];
                ByteBuffer.wrap(b).putLong(at);
                try {
                    p.send(new Message(topic, b), new SendCallback() {
                        public void onSuccess(SendResult r) { mark(r, 1, at); }
                        public void onException(Throwable e) { err(e); }
                    });
                } catch (Exception e) { err(e); }
            }
        });
        th.setDaemon(true);
        th.start();
        Thread.sleep(1000L * Math.max(5, i("warm", 5)));
        for (int r = 1; r <= i("runs", 3); r++) {
            ERR.reset(); NOTOK.reset(); errs.clear(); got.reset();
            eh[0] = new Hist(); Hist ah = new Hist(); hist = ah;
            Snap x = new Snap();
            winEnd = Long.MAX_VALUE; winStart = System.nanoTime();
            Thread.sleep(1000L * i("secs", 6));
            winEnd = System.nanoTime();
            Snap y = new Snap();
            Thread.sleep(300);
            report("e2e", r, x, y, got.sum(), eh[0], ",\"rate\":" + i("rate", 1000) + ",\"ack_p50_us\":" + f(ah.us(.5)) + ",\"ack_p99_us\":" + f(ah.us(.99)) + ",\"ack_p999_us\":" + f(ah.us(.999)));
        }
        stop = true;
        c.shutdown();
        p.shutdown();
    }

    // ---- one line per message (ms, queue, offset) until stdin closes; small caches, so that what arrives was pulled a moment ago
    static void trace(String topic) throws Exception {
        DefaultMQPushConsumer c = consumer("bench_t_" + System.nanoTime());
        c.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        c.setPullThresholdForQueue(16);
        c.setPullBatchSize(16);
        c.setConsumeThreadMin(1);
        c.setConsumeThreadMax(1);
        c.subscribe(topic, "*");
        c.registerMessageListener((MessageListenerConcurrently) (ms, ctx) -> {
            for (MessageExt m : ms) System.out.println("{\"t\":" + System.currentTimeMillis() + ",\"q\":" + m.getQueueId() + ",\"o\":" + m.getQueueOffset() + "}");
            System.out.flush();
            LockSupport.parkNanos(1_000_000);
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        c.start();
        while (System.in.read() >= 0) { }
        System.exit(0);
    }
}
