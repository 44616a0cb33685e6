import java.io.File;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.apache.rocketmq.store.index.IndexFile;

/**
 * Drives Apache RocketMQ's own IndexFile, for golden bytes and for exchange in both directions.
 *
 *   put FILE SLOTS ENTRIES < lines "key TAB phyOffset TAB storeTimestamp"   creates or continues the file
 *   get FILE SLOTS ENTRIES < lines "key TAB max TAB begin TAB end"          prints the offsets found, one line per query
 */
public class RecordIndex {
    public static void main(String[] args) throws Exception {
        Path path = Path.of(args[1]);
        boolean existed = Files.exists(path);
        IndexFile index = new IndexFile(path.toString(), Integer.parseInt(args[2]), Integer.parseInt(args[3]), 0, 0);
        if (existed) {
            index.load();
        }
        for (String line : new String(System.in.readAllBytes(), StandardCharsets.UTF_8).split("\n")) {
            String[] part = line.split("\t");
            if (args[0].equals("put")) {
                System.out.println("> " + index.putKey(part[0], Long.parseLong(part[1]), Long.parseLong(part[2])));
            } else {
                List<Long> found = new ArrayList<>();
                index.selectPhyOffset(found, part[0], Integer.parseInt(part[1]), Long.parseLong(part[2]), Long.parseLong(part[3]));
                System.out.println("> " + found);
            }
        }
        index.flush();
        index.shutdown();
        System.exit(0);
    }
}
