import java.io.PrintWriter;
import java.util.*;
import org.apache.rocketmq.client.consumer.AllocateMessageQueueStrategy;
import org.apache.rocketmq.client.consumer.rebalance.*;
import org.apache.rocketmq.common.message.MessageQueue;

/** Records what the official client's strategies give each member: java Rebalance ../rebalance.jsonl (RocketMQ client on the class path). */
public class Rebalance {
    static PrintWriter out;

    static List<MessageQueue> queues(String[] brokers, int each) {
        List<MessageQueue> all = new ArrayList<>();
        for (String broker : brokers) for (int i = 0; i < each; i++) all.add(new MessageQueue("TopicA", broker, i));
        Collections.sort(all);
        return all;
    }

    static void record(String name, AllocateMessageQueueStrategy strategy, List<MessageQueue> queues, List<String> members) {
        StringJoiner listed = new StringJoiner(",", "[", "]"), shares = new StringJoiner(",", "{", "}");
        for (MessageQueue q : queues) listed.add("[\"" + q.getTopic() + "\",\"" + q.getBrokerName() + "\"," + q.getQueueId() + "]");
        for (String me : members) {
            StringJoiner mine = new StringJoiner(",", "[", "]");
            for (MessageQueue q : strategy.allocate("G", me, queues, members)) mine.add("" + queues.indexOf(q));
            shares.add("\"" + me + "\":" + mine);
        }
        out.println("{\"strategy\":\"" + name + "\",\"queues\":" + listed + ",\"shares\":" + shares + "}");
    }

    public static void main(String[] args) throws Exception {
        out = new PrintWriter(args[0], "UTF-8");
        int[][] shapes = {{1, 1, 1}, {1, 4, 3}, {2, 4, 3}, {3, 8, 5}, {1, 3, 7}, {2, 16, 4}, {4, 4, 16}}; // brokers, queues each, members
        for (int[] shape : shapes) {
            String[] plain = new String[shape[0]], roomed = new String[shape[0]];
            for (int i = 0; i < shape[0]; i++) {
                plain[i] = "broker-" + (char) ('a' + i);
                roomed[i] = i == 2 ? "plain" : "room" + (i % 3) + "@" + plain[i];
            }
            List<String> members = new ArrayList<>();
            for (int i = 0; i < shape[2]; i++) members.add("10.0.0." + (i + 1) + "@" + (4000 + i) + "#" + (123456789L * (i + 1)));
            Collections.sort(members);
            record("AVG", new AllocateMessageQueueAveragely(), queues(plain, shape[1]), members);
            record("AVG_BY_CIRCLE", new AllocateMessageQueueAveragelyByCircle(), queues(plain, shape[1]), members);
            record("CONSISTENT_HASH", new AllocateMessageQueueConsistentHash(), queues(plain, shape[1]), members);
            AllocateMessageQueueByMachineRoom byRoom = new AllocateMessageQueueByMachineRoom();
            byRoom.setConsumeridcs(new HashSet<>(Arrays.asList("room0", "room1")));
            record("MACHINE_ROOM", byRoom, queues(roomed, shape[1]), members);
            AllocateMachineRoomNearby.MachineRoomResolver resolver = new AllocateMachineRoomNearby.MachineRoomResolver() {
                public String brokerDeployIn(MessageQueue queue) {
                    return queue.getBrokerName().split("@")[0];
                }

                public String consumerDeployIn(String member) {
                    return "room" + (Integer.parseInt(member.split("@")[0].split("\\.")[3]) % 2);
                }
            };
            record("NEARBY_AVG", new AllocateMachineRoomNearby(new AllocateMessageQueueAveragely(), resolver), queues(roomed, shape[1]), members);
        }
        out.close();
    }
}
