import com.alibaba.fastjson2.JSON;
import com.alibaba.fastjson2.JSONArray;
import com.alibaba.fastjson2.JSONObject;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.QueryResult;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.consumer.rebalance.AllocateMessageQueueAveragely;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.protocol.heartbeat.MessageModel;

/**
 * The official Java client, driven from outside: one JSON command a line on standard input, one JSON result a line on
 * standard output ({"ok":...} or {"error":...}). One process serves many tests, since starting a JVM takes a second.
 * Judging is left to the caller: this program only reports what the client saw.
 */
public class Driver {
    static final Map<String, DefaultMQProducer> producers = new HashMap<>();
    static final Map<String, Member> members = new HashMap<>();
    static String nameServer;
    static PrintStream out;

    /** A push consumer and all it received. */
    static final class Member {
        DefaultMQPushConsumer consumer;
        final List<JSONObject> received = Collections.synchronizedList(new ArrayList<>());
        final Set<String> failing = ConcurrentHashMap.newKeySet();
        boolean keysOnly;                                                   // for long runs: remember keys and times and nothing else
        final List<Object> keys = Collections.synchronizedList(new ArrayList<>());
        final List<Object> arrivals = Collections.synchronizedList(new ArrayList<>());
        long sleepMs;                                                       // a listener that takes its time

        void keep(MessageExt e) {
            if (keysOnly) { keys.add(e.getKeys()); arrivals.add(new Object[] {e.getKeys(), System.currentTimeMillis(), e.getQueueId(), e.getQueueOffset()}); }
            else received.add(message(e));
            if (sleepMs > 0) try { Thread.sleep(sleepMs); } catch (InterruptedException x) { }
        }
    }

    public static void main(String[] args) throws Exception {
        out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        System.setOut(System.err);                     // libraries that print must not disturb the protocol
        nameServer = args[0];
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        out.println("{\"ready\":true}");
        out.flush();
        String line;
        while ((line = in.readLine()) != null) {
            JSONObject answer = new JSONObject();
            try {
                answer.put("ok", run(JSON.parseObject(line)));
            } catch (Throwable e) {
                answer.put("error", e.getClass().getSimpleName() + ": " + e.getMessage());
            }
            out.println(answer.toJSONString());
            out.flush();
        }
        for (Member m : members.values()) m.consumer.shutdown();
        for (DefaultMQPullConsumer s : scanners.values()) s.shutdown();
        for (DefaultMQProducer p : producers.values()) p.shutdown();
        System.exit(0);
    }

    static Object run(JSONObject c) throws Exception {
        switch (c.getString("do")) {
            case "nameserver": nameServer = c.getString("address"); return true;
            case "send": return send(c);
            case "async": return async(c);
            case "oneway": return oneway(c);
            case "batch": return batch(c);
            case "ordered": return ordered(c);
            case "load": return load(c);
            case "answers": return answers();
            case "load_stop": return loadStop();
            case "close_producers": return closeProducers();
            case "subscribe": return subscribe(c);
            case "received": return received(c);
            case "arrivals": return arrivals(c);
            case "stop": return stop(c);
            case "pull": return pull(c);
            case "scan": return scan(c);
            case "litepull": return litePull(c);
            case "offsets": return offsets(c);
            case "view": return message(producer(c).viewMessage(c.getString("topic"), c.getString("id")));
            case "query": return query(c);
            case "create_topic": producer(c).createTopic("TBW102", c.getString("topic"), c.getIntValue("queues", 4), null); return true;
            case "queues": return queueList(producer(c).fetchPublishMessageQueues(c.getString("topic")));
            default: throw new IllegalArgumentException("unknown command " + c.getString("do"));
        }
    }

    static DefaultMQProducer producer(JSONObject c) throws Exception {
        String group = c.containsKey("producer") ? c.getString("producer") : "interop_producer";
        DefaultMQProducer p = producers.get(group);
        if (p == null) {
            p = new DefaultMQProducer(group);
            p.setNamesrvAddr(nameServer);
            p.setInstanceName(group + System.nanoTime());
            p.setSendMsgTimeout(c.getIntValue("timeout", 5000));
            if (c.containsKey("poll")) p.setPollNameServerInterval(c.getIntValue("poll"));
            p.start();
            producers.put(group, p);
        }
        return p;
    }

    static Object closeProducers() {
        for (DefaultMQProducer p : producers.values()) p.shutdown();
        producers.clear();
        return true;
    }

    static Message make(JSONObject c, JSONObject m) {
        String topic = m.containsKey("topic") ? m.getString("topic") : c.getString("topic");
        int size = m.getIntValue("size", 0);
        byte[] body = size > 0 ? "x".repeat(size).getBytes() : String.valueOf(m.get("body")).getBytes(StandardCharsets.UTF_8);
        Message message = new Message(topic, m.getString("tag"), m.getString("keys"), body);
        if (m.containsKey("delay")) message.setDelayTimeLevel(m.getIntValue("delay"));
        if (m.containsKey("wait")) message.setWaitStoreMsgOK(m.getBooleanValue("wait"));
        JSONObject properties = m.getJSONObject("properties");
        if (properties != null) for (String k : properties.keySet()) message.putUserProperty(k, properties.getString(k));
        return message;
    }

    static List<Message> all(JSONObject c) {
        List<Message> found = new ArrayList<>();
        JSONArray messages = c.getJSONArray("messages");
        for (int i = 0; i < messages.size(); i++) found.add(make(c, messages.getJSONObject(i)));
        return found;
    }

    static JSONObject result(SendResult r) {
        JSONObject o = new JSONObject();
        o.put("status", r.getSendStatus().name());
        o.put("id", r.getMsgId());
        o.put("offset_id", r.getOffsetMsgId());
        o.put("broker", r.getMessageQueue().getBrokerName());
        o.put("queue", r.getMessageQueue().getQueueId());
        o.put("offset", r.getQueueOffset());
        o.put("region", r.getRegionId());
        return o;
    }

    static Object send(JSONObject c) throws Exception {
        DefaultMQProducer p = producer(c);
        List<Object> results = new ArrayList<>();
        for (Message m : all(c)) results.add(result(p.send(m)));
        return results;
    }

    static Object async(JSONObject c) throws Exception {
        DefaultMQProducer p = producer(c);
        List<Message> messages = all(c);
        JSONObject[] results = new JSONObject[messages.size()];
        CountDownLatch left = new CountDownLatch(messages.size());
        Semaphore inFlight = new Semaphore(c.getIntValue("inflight", 256));
        for (int i = 0; i < messages.size(); i++) {
            final int at = i;
            inFlight.acquire();
            p.send(messages.get(i), new SendCallback() {
                public void onSuccess(SendResult r) { results[at] = result(r); inFlight.release(); left.countDown(); }
                public void onException(Throwable e) {
                    results[at] = new JSONObject(); results[at].put("status", "FAILED " + e); inFlight.release(); left.countDown();
                }
            });
        }
        if (!left.await(60, TimeUnit.SECONDS)) throw new IllegalStateException(left.getCount() + " sends unanswered after 60 s");
        return results;
    }

    static Object oneway(JSONObject c) throws Exception {
        for (Message m : all(c)) producer(c).sendOneway(m);
        return true;
    }

    static Object batch(JSONObject c) throws Exception {
        return result(producer(c).send(all(c)));
    }

    static Object ordered(JSONObject c) throws Exception {
        List<Object> results = new ArrayList<>();
        DefaultMQProducer p = producer(c);
        for (Message m : all(c)) {
            results.add(result(p.send(m, (queues, message, key) -> queues.get(Math.floorMod(key.hashCode(), queues.size())), m.getKeys())));
        }
        return results;
    }

    // ---- load that goes on while brokers die: every answer is remembered, with the time before the call and the time of the answer
    static volatile boolean loading;
    static final List<Thread> loaders = new ArrayList<>();
    static List<JSONObject> answers = new ArrayList<>();
    static final Object answersLock = new Object();
    static final AtomicInteger failures = new AtomicInteger();

    static void keep(SendResult r, String key, long began) {
        JSONObject o = result(r);
        o.put("key", key);
        o.put("began", began);
        o.put("ended", System.currentTimeMillis());
        synchronized (answersLock) { answers.add(o); }
    }

    /** With `threads` that many senders, each one message at a time; else one that has `inflight` unanswered. */
    static Object load(JSONObject c) throws Exception {
        DefaultMQProducer p = producer(c);
        p.setRetryTimesWhenSendAsyncFailed(0);
        failures.set(0);
        loading = true;
        String topic = c.getString("topic");
        String prefix = c.containsKey("prefix") ? c.getString("prefix") : "m";
        byte[] padding = new byte[c.getIntValue("size", 200)];
        new java.util.Random(1).nextBytes(padding);                         // does not shrink when the client compresses it
        long pause = c.getLongValue("pause_us", 400) * 1000;
        int threads = c.getIntValue("threads", 0);
        Semaphore inFlight = new Semaphore(c.getIntValue("inflight", 64));
        loaders.clear();
        for (int t = 0; t < Math.max(1, threads); t++) {
            String mine = threads > 0 ? prefix + "-" + t : prefix;
            Thread loader = new Thread(() -> {
                for (int i = 0; loading; i++) {
                    String key = mine + "-" + i;
                    Message m = new Message(topic, "", key, padding);
                    java.util.concurrent.locks.LockSupport.parkNanos(pause);
                    try {
                        if (threads > 0) {
                            long began = System.currentTimeMillis();
                            keep(p.send(m), key, began);
                        } else {
                            loadOne(p, m, key, inFlight);
                        }
                    } catch (Throwable e) {
                        failures.incrementAndGet();
                        try { Thread.sleep(5); } catch (InterruptedException x) { return; }
                    }
                }
            });
            loader.setDaemon(true);
            loader.start();
            loaders.add(loader);
        }
        return true;
    }

    static void loadOne(DefaultMQProducer p, Message m, String key, Semaphore inFlight) throws Exception {
        inFlight.acquire();
        long began = System.currentTimeMillis();
        try {
            p.send(m, new SendCallback() {
                public void onSuccess(SendResult r) { inFlight.release(); keep(r, key, began); }
                public void onException(Throwable e) { inFlight.release(); failures.incrementAndGet(); }
            });
        } catch (Throwable e) {
            inFlight.release();
            throw e;
        }
    }

    /** All answers since the last question. */
    static Object answers() {
        synchronized (answersLock) { List<JSONObject> all = answers; answers = new ArrayList<>(); return all; }
    }

    static Object loadStop() throws Exception {
        loading = false;
        for (Thread t : loaders) t.join(20000);
        Thread.sleep(200);
        JSONObject o = new JSONObject();
        o.put("answers", answers());
        o.put("failures", failures.get());
        return o;
    }

    // ---- consumers
    static Object subscribe(JSONObject c) throws Exception {
        Member m = new Member();
        m.keysOnly = c.getBooleanValue("keys_only");
        m.sleepMs = c.getLongValue("sleep_ms");
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(c.getString("group"));
        m.consumer = consumer;
        consumer.setNamesrvAddr(nameServer);
        consumer.setInstanceName(c.getString("member") + System.nanoTime());
        if (c.containsKey("instance")) consumer.setInstanceName(c.getString("instance"));
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setAllocateMessageQueueStrategy(new AllocateMessageQueueAveragely());
        if (c.getBooleanValue("broadcasting")) consumer.setMessageModel(MessageModel.BROADCASTING);
        if (c.containsKey("max_reconsume")) consumer.setMaxReconsumeTimes(c.getIntValue("max_reconsume"));
        if (c.containsKey("threads")) { consumer.setConsumeThreadMin(c.getIntValue("threads")); consumer.setConsumeThreadMax(c.getIntValue("threads")); }
        if (c.containsKey("suspend_ms")) consumer.setSuspendCurrentQueueTimeMillis(c.getIntValue("suspend_ms"));
        if (c.containsKey("poll")) consumer.setPollNameServerInterval(c.getIntValue("poll"));
        if (c.containsKey("cache")) consumer.setPullThresholdForQueue(c.getIntValue("cache"));
        consumer.subscribe(c.getString("topic"), c.containsKey("tags") ? c.getString("tags") : "*");
        JSONArray failing = c.getJSONArray("failing");
        if (failing != null) for (Object k : failing) m.failing.add(String.valueOf(k));
        int level = c.getIntValue("retry_level", 0);
        if (c.getBooleanValue("orderly")) {
            consumer.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
                for (MessageExt e : messages) m.keep(e);
                for (MessageExt e : messages) if (m.failing.contains(e.getKeys())) return ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT;
                return ConsumeOrderlyStatus.SUCCESS;
            });
        } else {
            consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
                for (MessageExt e : messages) m.keep(e);
                context.setDelayLevelWhenNextConsume(level);
                for (MessageExt e : messages) if (m.failing.contains(e.getKeys())) return ConsumeConcurrentlyStatus.RECONSUME_LATER;
                return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
            });
        }
        consumer.start();
        members.put(c.getString("member"), m);
        return true;
    }

    /** What a member received since the last question; waits until `count` have come in all or `seconds` passed. */
    static Object received(JSONObject c) throws Exception {
        Member m = members.get(c.getString("member"));
        int count = c.getIntValue("count", 1);
        long end = System.nanoTime() + (long) (c.getDoubleValue("seconds") * 1e9);
        while (m.received.size() + m.keys.size() < count && System.nanoTime() < end) Thread.sleep(5);
        if (c.getBooleanValue("heal")) m.failing.clear();
        List<?> all = m.keysOnly ? m.keys : m.received;
        synchronized (all) { return new ArrayList<>(all); }
    }

    /** Of a member with `keys_only`: [key, time, queue, offset] of everything since `from`, in the order of arrival. */
    static Object arrivals(JSONObject c) {
        List<Object> all = members.get(c.getString("member")).arrivals;
        synchronized (all) { return new ArrayList<>(all.subList(Math.min(c.getIntValue("from"), all.size()), all.size())); }
    }

    static Object stop(JSONObject c) {
        Member m = members.remove(c.getString("member"));
        if (m != null) m.consumer.shutdown();
        return true;
    }

    static JSONObject message(MessageExt e) {
        JSONObject o = new JSONObject();
        o.put("id", e.getMsgId());
        o.put("topic", e.getTopic());
        o.put("queue", e.getQueueId());
        o.put("offset", e.getQueueOffset());
        o.put("keys", e.getKeys());
        o.put("tags", e.getTags());
        o.put("body", e.getBody().length <= 4096 ? new String(e.getBody(), StandardCharsets.UTF_8) : null);
        o.put("size", e.getBody().length);
        o.put("reconsume", e.getReconsumeTimes());
        o.put("properties", e.getProperties());
        o.put("born", e.getBornTimestamp());
        o.put("stored", e.getStoreTimestamp());
        o.put("broker", e.getBrokerName());
        o.put("at", System.currentTimeMillis());
        return o;
    }

    static Object query(JSONObject c) throws Exception {
        QueryResult r = producer(c).queryMessage(c.getString("topic"), c.getString("key"), c.getIntValue("max", 32), 0, System.currentTimeMillis() + 60000);
        List<Object> found = new ArrayList<>();
        for (MessageExt e : r.getMessageList()) found.add(message(e));
        return found;
    }

    static List<Object> queueList(Iterable<MessageQueue> queues) {
        List<Object> found = new ArrayList<>();
        for (MessageQueue q : queues) { JSONObject o = new JSONObject(); o.put("broker", q.getBrokerName()); o.put("queue", q.getQueueId()); found.add(o); }
        return found;
    }

    static MessageQueue queue(JSONObject c) {
        return new MessageQueue(c.getString("topic"), c.getString("broker"), c.getIntValue("queue"));
    }

    static Object offsets(JSONObject c) throws Exception {
        JSONObject o = new JSONObject();
        MessageQueue q = queue(c);
        o.put("min", producer(c).minOffset(q));
        o.put("max", producer(c).maxOffset(q));
        o.put("earliest", producer(c).earliestMsgStoreTime(q));
        if (c.containsKey("time")) o.put("at_time", producer(c).searchOffset(q, c.getLongValue("time")));
        return o;
    }

    @SuppressWarnings("deprecation")
    static Object pull(JSONObject c) throws Exception {
        DefaultMQPullConsumer consumer = new DefaultMQPullConsumer(c.getString("group"));
        consumer.setNamesrvAddr(nameServer);
        consumer.setInstanceName("pull" + System.nanoTime());
        consumer.start();
        try {
            PullResult r = consumer.pull(queue(c), c.containsKey("tags") ? c.getString("tags") : "*", c.getLongValue("offset"), c.getIntValue("max", 32));
            JSONObject o = new JSONObject();
            o.put("status", r.getPullStatus().name());
            o.put("next", r.getNextBeginOffset());
            o.put("min", r.getMinOffset());
            o.put("max", r.getMaxOffset());
            List<Object> found = new ArrayList<>();
            if (r.getMsgFoundList() != null) for (MessageExt e : r.getMsgFoundList()) found.add(message(e));
            o.put("messages", found);
            return o;
        } finally {
            consumer.shutdown();
        }
    }

    static final Map<String, DefaultMQPullConsumer> scanners = new HashMap<>();

    /** Every message of a queue, from its first offset to its last. With `at` it is read from the member with that broker id, by pulls
     * alone, since questions for offsets go to the master. */
    @SuppressWarnings("deprecation")
    static Object scan(JSONObject c) throws Exception {
        String name = nameServer + c.getString("group") + c.get("at");
        DefaultMQPullConsumer consumer = scanners.get(name);
        if (consumer == null) {
            consumer = new DefaultMQPullConsumer(c.getString("group"));
            consumer.setNamesrvAddr(nameServer);
            consumer.setInstanceName(name + System.nanoTime());
            consumer.start();
            scanners.put(name, consumer);
        }
        boolean there = c.containsKey("at");
        if (there) {
            consumer.getDefaultMQPullConsumerImpl().getPullAPIWrapper().setConnectBrokerByUser(true);
            consumer.getDefaultMQPullConsumerImpl().getPullAPIWrapper().setDefaultBrokerId(c.getIntValue("at"));
        }
        List<Object> found = new ArrayList<>();
        MessageQueue q = queue(c);
        long at = there ? c.getLongValue("from") : consumer.minOffset(q), end = there ? Long.MAX_VALUE : consumer.maxOffset(q);
        while (at < end) {
            PullResult r = consumer.pull(q, "*", at, 32);
            if (r.getMsgFoundList() != null) {
                for (MessageExt e : r.getMsgFoundList()) {
                    JSONObject o = new JSONObject();
                    o.put("offset", e.getQueueOffset());
                    o.put("keys", e.getKeys());
                    o.put("id", e.getMsgId());
                    found.add(o);
                }
            }
            if (r.getNextBeginOffset() <= at && there) break;
            if (r.getNextBeginOffset() <= at) throw new IllegalStateException("the scan of " + q + " does not get past " + at + ": " + r);
            at = r.getNextBeginOffset();
        }
        return found;
    }

    static Object litePull(JSONObject c) throws Exception {
        DefaultLitePullConsumer consumer = new DefaultLitePullConsumer(c.getString("group"));
        consumer.setNamesrvAddr(nameServer);
        consumer.setInstanceName("lite" + System.nanoTime());
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.subscribe(c.getString("topic"), c.containsKey("tags") ? c.getString("tags") : "*");
        consumer.start();
        List<Object> found = new ArrayList<>();
        try {
            long end = System.nanoTime() + (long) (c.getDoubleValue("seconds") * 1e9);
            while (found.size() < c.getIntValue("count", 1) && System.nanoTime() < end) for (MessageExt e : consumer.poll(100)) found.add(message(e));
            consumer.commitSync();
        } finally {
            consumer.shutdown();
        }
        return found;
    }
}
