import com.alibaba.fastjson2.JSONWriter;
import io.netty.buffer.ByteBuf;
import io.netty.buffer.Unpooled;
import java.io.File;
import java.lang.reflect.Field;
import java.lang.reflect.Modifier;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.*;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.rocketmq.broker.offset.ConsumerOffsetManager;
import org.apache.rocketmq.broker.subscription.SubscriptionGroupManager;
import org.apache.rocketmq.broker.topic.TopicConfigManager;
import org.apache.rocketmq.common.*;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.*;
import org.apache.rocketmq.remoting.CommandCustomHeader;
import org.apache.rocketmq.remoting.protocol.*;
import org.apache.rocketmq.remoting.protocol.admin.*;
import org.apache.rocketmq.remoting.protocol.body.*;
import org.apache.rocketmq.remoting.protocol.filter.FilterAPI;
import org.apache.rocketmq.remoting.protocol.header.*;
import org.apache.rocketmq.remoting.protocol.heartbeat.*;
import org.apache.rocketmq.remoting.protocol.route.*;
import org.apache.rocketmq.remoting.protocol.subscription.SubscriptionGroupConfig;
import org.apache.rocketmq.store.*;
import org.apache.rocketmq.store.config.MessageStoreConfig;
import org.apache.rocketmq.store.index.IndexFile;
import org.apache.rocketmq.store.stats.BrokerStatsManager;

/** Writes what the real 5.4.0 classes produce, as hex by name. Usage: Record OUTPUT_DIRECTORY HEADER_CLASS_LIST */
public class Record {
    static final Map<String, String> out = new TreeMap<>();
    static Path target;

    static void put(String name, byte[] data) {
        StringBuilder text = new StringBuilder();
        for (byte b : data) text.append(String.format("%02x", b));
        out.put(name, text.toString());
    }

    static void put(String name, String text) { put(name, text.getBytes(StandardCharsets.UTF_8)); }

    static void put(String name, ByteBuffer buffer) {
        byte[] data = new byte[buffer.remaining()];
        buffer.get(data);
        put(name, data);
    }

    static void save(String file) throws Exception {
        StringBuilder text = new StringBuilder("{\n");
        String mark = "";
        for (Map.Entry<String, String> e : out.entrySet()) {
            text.append(mark).append("  \"").append(e.getKey()).append("\": \"").append(e.getValue()).append('"');
            mark = ",\n";
        }
        Files.write(target.resolve(file), text.append("\n}\n").toString().getBytes(StandardCharsets.UTF_8));
        out.clear();
    }

    /** Every field gets a value of its own, so that a swapped name shows. */
    static CommandCustomHeader filled(String name) throws Exception {
        CommandCustomHeader header = (CommandCustomHeader) Class.forName(name).getDeclaredConstructor().newInstance();
        int n = 1;
        for (Class<?> c = header.getClass(); c != Object.class; c = c.getSuperclass()) {
            for (Field f : c.getDeclaredFields()) {
                if (Modifier.isStatic(f.getModifiers()) || f.getName().startsWith("this")) continue;
                f.setAccessible(true);
                Class<?> t = f.getType();
                n++;
                if (t == String.class) f.set(header, f.getName() + "\u00e9");
                else if (t == int.class || t == Integer.class) f.set(header, n);
                else if (t == long.class || t == Long.class) f.set(header, 1_000_000_000_000L + n);
                else if (t == boolean.class || t == Boolean.class) f.set(header, n % 2 == 0);
                else if (t.isEnum()) f.set(header, t.getEnumConstants()[1]);
                else throw new IllegalStateException(name + "." + f.getName() + " is a " + t);
            }
        }
        return header;
    }

    static RemotingCommand request(int code, CommandCustomHeader header, byte[] body, SerializeType type, int opaque) {
        RemotingCommand command = RemotingCommand.createRequestCommand(code, header);
        command.setBody(body);
        command.setSerializeTypeCurrentRPC(type);
        command.setOpaque(opaque);
        return command;
    }

    static void headers(String list) throws Exception {
        for (String name : Files.readAllLines(Path.of(list))) {
            if (name.isBlank()) continue;
            String simple = name.substring(name.lastIndexOf('.') + 1);
            for (SerializeType type : SerializeType.values())
                put(simple + "/" + type, request(100, filled(name), null, type, 7).encode());
        }
        save("headers.json");
    }

    static void frames() throws Exception {
        for (SerializeType type : SerializeType.values()) {
            SendMessageRequestHeader send = new SendMessageRequestHeader();
            send.setProducerGroup("PG");
            send.setTopic("TopicTest");
            send.setDefaultTopic("TBW102");
            send.setDefaultTopicQueueNums(4);
            send.setQueueId(3);
            send.setSysFlag(0);
            send.setBornTimestamp(1700000000123L);
            send.setFlag(5);
            send.setProperties("KEYS\u0001k \"1\"\u0002TAGS\u0001Täg\\A\u0002");
            send.setReconsumeTimes(0);
            send.setUnitMode(false);
            send.setBatch(false);
            byte[] body = "hello \u4e16\u754c".getBytes(StandardCharsets.UTF_8);
            put("send_v1/" + type, request(RequestCode.SEND_MESSAGE, send, body, type, 11).encode());
            SendMessageRequestHeaderV2 v2 = SendMessageRequestHeaderV2.createSendMessageRequestHeaderV2(send);
            put("send_v2/" + type, request(RequestCode.SEND_MESSAGE_V2, v2, body, type, 12).encode());
            RemotingCommand oneway = request(RequestCode.SEND_MESSAGE_V2, v2, body, type, -2147483648);
            oneway.markOnewayRPC();
            put("send_oneway/" + type, oneway.encode());
            RemotingCommand fast = request(RequestCode.SEND_MESSAGE_V2, v2, body, type, 13);
            ByteBuf buffer = Unpooled.buffer();
            fast.fastEncodeHeader(buffer);
            buffer.writeBytes(body);
            byte[] data = new byte[buffer.readableBytes()];
            buffer.readBytes(data);
            put("send_fast/" + type, data);
            put("heartbeat_empty/" + type, request(RequestCode.HEART_BEAT, null, null, type, 14).encode());

            SendMessageResponseHeader ok = new SendMessageResponseHeader();
            ok.setMsgId("7F00000100002A9F00000000000004D2");
            ok.setQueueId(3);
            ok.setQueueOffset(7L);
            ok.setTransactionId("7F0000010001");
            RemotingCommand response = RemotingCommand.createResponseCommandWithHeader(0, ok);
            response.addExtField("MSG_REGION", "DefaultRegion");
            response.addExtField("TRACE_ON", "true");
            response.setOpaque(5);
            response.setSerializeTypeCurrentRPC(type);
            put("send_ok/" + type, response.encode());

            PullMessageResponseHeader pull = new PullMessageResponseHeader();
            pull.setSuggestWhichBrokerId(1L);
            pull.setNextBeginOffset(33L);
            pull.setMinOffset(2L);
            pull.setMaxOffset(99L);
            response = RemotingCommand.createResponseCommandWithHeader(0, pull);
            response.setRemark("FOUND");
            response.setOpaque(6);
            response.setBody(new byte[] {1, 2, 3});
            response.setSerializeTypeCurrentRPC(type);
            put("pull_found/" + type, response.encode());

            response = RemotingCommand.createResponseCommand(17, "No topic route info for \"T\u00e4\"\n\tsee \u0001\u007f/docs");
            response.setOpaque(8);
            response.setSerializeTypeCurrentRPC(type);
            put("error/" + type, response.encode());
        }
        save("frames.json");
    }

    static SubscriptionGroupConfig group(String name) {
        SubscriptionGroupConfig config = new SubscriptionGroupConfig();
        config.setGroupName(name);
        return config;
    }

    static DataVersion version() {
        DataVersion version = new DataVersion();
        version.setTimestamp(1795213733476L);
        version.setCounter(new java.util.concurrent.atomic.AtomicLong(3));
        return version;
    }

    static void bodies() throws Exception {
        TopicRouteData route = new TopicRouteData();
        HashMap<Long, String> addresses = new HashMap<>();
        addresses.put(0L, "10.0.0.1:10911");
        addresses.put(1L, "10.0.0.2:10911");
        route.setBrokerDatas(List.of(new BrokerData("C", "broker-a", addresses)));
        QueueData queue = new QueueData();
        queue.setBrokerName("broker-a");
        queue.setPerm(6);
        queue.setReadQueueNums(4);
        queue.setWriteQueueNums(4);
        route.setQueueDatas(List.of(queue));
        route.setFilterServerTable(new HashMap<>());
        route.setOrderTopicConf("broker-a:4");
        put("route/bare", route.encode());
        put("route/quoted", route.encode(JSONWriter.Feature.BrowserCompatible, JSONWriter.Feature.MapSortField));

        ClusterInfo cluster = new ClusterInfo();
        HashMap<String, BrokerData> brokers = new HashMap<>();
        brokers.put("broker-a", new BrokerData("C", "broker-a", addresses));
        cluster.setBrokerAddrTable(brokers);
        HashMap<String, Set<String>> clusters = new HashMap<>();
        clusters.put("C", Set.of("broker-a"));
        cluster.setClusterAddrTable(clusters);
        put("cluster", cluster.encode());

        HeartbeatData heartbeat = new HeartbeatData();
        heartbeat.setClientID("10.0.0.9@1234#5678");
        ProducerData producer = new ProducerData();
        producer.setGroupName("PG");
        heartbeat.getProducerDataSet().add(producer);
        ConsumerData consumer = new ConsumerData();
        consumer.setGroupName("G");
        consumer.setConsumeType(ConsumeType.CONSUME_PASSIVELY);
        consumer.setMessageModel(MessageModel.CLUSTERING);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET);
        SubscriptionData subscription = FilterAPI.buildSubscriptionData("T", "TagA || TagB");
        subscription.setSubVersion(1700000000000L);
        consumer.getSubscriptionDataSet().add(subscription);
        heartbeat.getConsumerDataSet().add(consumer);
        put("heartbeat", heartbeat.encode());

        MessageQueue mq = new MessageQueue("T", "broker-a", 3);
        TopicStatsTable stats = new TopicStatsTable();
        TopicOffset offset = new TopicOffset();
        offset.setMinOffset(1);
        offset.setMaxOffset(9);
        offset.setLastUpdateTimestamp(1700000000000L);
        stats.getOffsetTable().put(mq, offset);
        put("topic_stats", stats.encode());
        ConsumeStats consume = new ConsumeStats();
        OffsetWrapper wrapper = new OffsetWrapper();
        wrapper.setBrokerOffset(9);
        wrapper.setConsumerOffset(5);
        wrapper.setLastTimestamp(1700000000000L);
        consume.getOffsetTable().put(mq, wrapper);
        consume.setConsumeTps(2.5);
        put("consume_stats", consume.encode());
        ResetOffsetBody reset = new ResetOffsetBody();
        Map<MessageQueue, Long> resets = new HashMap<>();
        resets.put(mq, 5L);
        reset.setOffsetTable(resets);
        put("reset_offset", reset.encode());
        LockBatchRequestBody lock = new LockBatchRequestBody();
        lock.setClientId("c");
        lock.setConsumerGroup("G");
        lock.getMqSet().add(mq);
        put("lock", lock.encode());
        LockBatchResponseBody locked = new LockBatchResponseBody();
        locked.getLockOKMQSet().add(mq);
        put("locked", locked.encode());
        Connection connection = new Connection();
        connection.setClientAddr("10.0.0.9:4711");
        connection.setClientId("10.0.0.9@1");
        connection.setLanguage(LanguageCode.GO);
        connection.setVersion(317);
        ConsumerConnection connections = new ConsumerConnection();
        connections.getConnectionSet().add(connection);
        connections.getSubscriptionTable().put("T", subscription);
        connections.setConsumeType(ConsumeType.CONSUME_PASSIVELY);
        connections.setMessageModel(MessageModel.BROADCASTING);
        connections.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        put("consumer_connection", connections.encode());
        GetConsumerListByGroupResponseBody members = new GetConsumerListByGroupResponseBody();
        members.setConsumerIdList(List.of("id1", "id2"));
        put("consumer_list", members.encode());
        put("group_config", RemotingSerializable.encode(group("G")));
        put("data_version", version().encode());
        put("topic_config", RemotingSerializable.encode(new TopicConfig("T", 4, 4, 6)));
        ConsumerRunningInfo running = new ConsumerRunningInfo();
        running.getProperties().put("PROP_CLIENT_VERSION", "V5_4_0");
        running.getSubscriptionSet().add(subscription);
        ProcessQueueInfo process = new ProcessQueueInfo();
        process.setCommitOffset(4);
        process.setCachedMsgSizeInMiB(2);
        running.getMqTable().put(mq, process);
        running.getStatusTable().put("T", new ConsumeStatus());
        put("running_info", running.encode());
        put("consume_directly", new ConsumeMessageDirectlyResult().encode());
        BrokerStatsData statsData = new BrokerStatsData();
        statsData.setStatsDay(new BrokerStatsItem());
        statsData.setStatsHour(new BrokerStatsItem());
        statsData.setStatsMinute(new BrokerStatsItem());
        put("broker_stats", statsData.encode());
        put("ha_runtime", new HARuntimeInfo().encode());

        RegisterBrokerBody register = new RegisterBrokerBody();
        TopicConfigAndMappingSerializeWrapper topics = new TopicConfigAndMappingSerializeWrapper();
        topics.setDataVersion(version());
        topics.getMappingDataVersion().setTimestamp(1795213733000L);
        TopicConfig config = new TopicConfig("T", 4, 8, 6);
        config.getAttributes().put("+message.type", "NORMAL");
        topics.getTopicConfigTable().put("T", config);
        register.setTopicConfigSerializeWrapper(topics);
        register.setFilterServerList(new ArrayList<>());
        put("register/plain", register.encode(false));
        put("register/compressed", register.encode(true));
        save("bodies.json");
    }

    static MessageExt message(String born, String store) throws Exception {
        MessageExt message = new MessageExt();
        message.setTopic("TopicTest");
        message.setBody("body \u4e16".getBytes(StandardCharsets.UTF_8));
        message.setQueueId(2);
        message.setFlag(77);
        message.setQueueOffset(5);
        message.setCommitLogOffset(123456789012L);
        message.setBornTimestamp(1700000000123L);
        message.setStoreTimestamp(1700000000456L);
        message.setBornHost(new InetSocketAddress(InetAddress.getByName(born), 4711));
        message.setStoreHost(new InetSocketAddress(InetAddress.getByName(store), 10911));
        if (born.contains(":")) message.setBornHostV6Flag();
        if (store.contains(":")) message.setStoreHostAddressV6Flag();
        message.setReconsumeTimes(1);
        message.setPreparedTransactionOffset(0);
        message.setKeys("k1 k2");
        message.setTags("TagA");
        message.putUserProperty("name", "v\u00e4lue");
        return message;
    }

    static void messages() throws Exception {
        Map<String, String> properties = new LinkedHashMap<>();
        properties.put("A", "1");
        properties.put("B", "\u4e16 2");
        put("properties", MessageDecoder.messageProperties2String(properties));
        List<Message> batch = List.of(new Message("T", "TagA", "k", "hi".getBytes()), new Message("T", "\u00fc".getBytes(StandardCharsets.UTF_8)));
        put("batch", MessageDecoder.encodeMessages(batch));
        String[] hosts = {"10.0.0.1", "fd00::2"};
        for (String born : hosts)
            for (String store : hosts) {
                String name = (born.contains(":") ? "v6" : "v4") + "_" + (store.contains(":") ? "v6" : "v4");
                put("record/" + name, MessageDecoder.encode(message(born, store), false));
            }
        for (String host : hosts) {
            ByteBuffer id = ByteBuffer.allocate(28);
            byte[] ip = InetAddress.getByName(host).getAddress();
            ByteBuffer where = ByteBuffer.allocate(ip.length + 4).put(ip).putInt(10911);
            where.flip();
            put("message_id/" + (ip.length == 4 ? "v4" : "v6"),
                MessageDecoder.createMessageId(ByteBuffer.allocate(ip.length == 4 ? 16 : 28), where, 123456789012L));
        }
        String unique = MessageClientIDSetter.createUniqID();
        put("unique_key/text", unique);
        put("unique_key/ip", MessageClientIDSetter.getIPFromID(unique));
        put("unique_key/pid", "" + MessageClientIDSetter.getPidFromID(unique));
        put("unique_key/time_ms", "" + MessageClientIDSetter.getNearlyTimeFromID(unique).getTime());
        for (String tag : new String[] {"TagA", "a rather long tag with \u00e4\u4e16 in it \ud83d\ude00"}) put("hash/" + tag.hashCode(), tag);
        save("messages.json");
    }

    static void store(Path scratch) throws Exception {
        TopicConfigManager topics = new TopicConfigManager();
        TopicConfig config = new TopicConfig("TopicTest", 4, 8, 6);
        config.getAttributes().put("message.type", "NORMAL");
        topics.getTopicConfigTable().put("TopicTest", config);
        topics.getTopicConfigTable().put("%RETRY%G", new TopicConfig("%RETRY%G", 1, 1, 6));
        topics.getDataVersion().assignNewOne(version());
        put("topics.json", topics.encode(true));
        put("topics.json/compact", topics.encode(false));
        ConsumerOffsetManager offsets = new ConsumerOffsetManager();
        ConcurrentHashMap<Integer, Long> table = new ConcurrentHashMap<>();
        table.put(0, 7L);
        table.put(3, 12345678901L);
        offsets.getOffsetTable().put("TopicTest@G", table);
        offsets.getDataVersion().assignNewOne(version());
        put("consumerOffset.json", offsets.encode(true));
        put("consumerOffset.json/compact", offsets.encode(false));
        SubscriptionGroupManager groups = new SubscriptionGroupManager();
        groups.getSubscriptionGroupTable().clear();
        groups.getSubscriptionGroupTable().put("G", group("G"));
        groups.getDataVersion().assignNewOne(version());
        put("subscriptionGroup.json", groups.encode(true));
        put("subscriptionGroup.json/compact", groups.encode(false));

        String file = scratch.resolve("20240102030405678").toString();
        IndexFile index = new IndexFile(file, 7, 20, 0, 0);
        index.putKey("TopicTest#k1", 100, 1700000000456L);
        index.putKey("TopicTest#k2", 300, 1700000001456L);
        index.putKey("TopicTest#k1", 500, 1700000003999L);
        index.flush();
        put("index/7_slots_20_entries", Files.readAllBytes(Path.of(file)));

        MessageStoreConfig storeConfig = new MessageStoreConfig();
        storeConfig.setStorePathRootDir(scratch.resolve("store").toString());
        DefaultMessageStore messageStore =
            new DefaultMessageStore(storeConfig, new BrokerStatsManager("C", false), null, new BrokerConfig(), new ConcurrentHashMap<>());
        ConsumeQueue queue = new ConsumeQueue("TopicTest", 0, scratch.resolve("cq").toString(), 200, messageStore);
        java.lang.reflect.Method put = ConsumeQueue.class.getDeclaredMethod("putMessagePositionInfo", long.class, int.class, long.class, long.class);
        put.setAccessible(true); // its public wrapper needs a started store
        for (int i = 0; i < 3; i++) put.invoke(queue, 1000L + i * 200, 200, i == 1 ? 0L : (long) "TagA".hashCode(), (long) i);
        queue.flush(0);
        put("consume_queue/three_units", Arrays.copyOf(Files.readAllBytes(scratch.resolve("cq/TopicTest/0/00000000000000000000")), 60));
        save("store.json");
    }

    public static void main(String[] args) throws Exception {
        System.setProperty(RemotingCommand.REMOTING_VERSION_KEY, Integer.toString(MQVersion.Version.V5_4_0.ordinal()));
        target = Path.of(args[0]);
        int status = 1;
        try {
            headers(args[1]);
            frames();
            bodies();
            messages();
            store(Files.createTempDirectory("record"));
            status = 0;
        } catch (Exception e) {
            e.printStackTrace();
        }
        System.exit(status); // the store's threads are no daemons
    }
}
