import com.alibaba.fastjson2.JSON;
import com.alibaba.fastjson2.JSONArray;
import com.alibaba.fastjson2.JSONObject;
import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import org.apache.rocketmq.tools.command.MQAdminStartup;

/**
 * Many mqadmin commands in one JVM: each line of input is a JSON array of arguments, each line of output what the command printed.
 */
public class Mqadmin extends MQAdminStartup {
    public static void main(String[] args) {
        try {
            serve();
        } catch (Exception error) {
            error.printStackTrace();
            System.exit(1);
        }
    }

    private static void serve() throws Exception {
        PrintStream real = System.out;
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        real.println("{\"ready\":true}");
        String line;
        while ((line = in.readLine()) != null) {
            JSONArray words = JSON.parseArray(line);
            ByteArrayOutputStream bytes = new ByteArrayOutputStream();
            PrintStream out = new PrintStream(bytes, true, "UTF-8");
            System.setOut(out);
            System.setErr(out);
            JSONObject answer = new JSONObject();
            try {
                SUB_COMMANDS.clear(); // main0 adds its commands each time, and a used one may not be used again
                MQAdminStartup.main0(words.toArray(new String[0]), null);
            } catch (Throwable error) {
                error.printStackTrace(out);
            }
            out.flush();
            answer.put("ok", bytes.toString("UTF-8"));
            real.println(answer.toJSONString());
            real.flush();
        }
        System.exit(0);
    }
}
