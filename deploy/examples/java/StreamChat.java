// Streams one chat answer.  usage: StreamChat [ADDRESS [QUESTION [SECONDS [CHARACTERS]]]]
//
// SECONDS: the call's deadline. CHARACTERS: after so many it is cancelled.
import io.grpc.Context;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.StatusRuntimeException;
import java.util.Iterator;
import java.util.concurrent.TimeUnit;
import sirocco.v1.Chat;
import sirocco.v1.ChatMessage;
import sirocco.v1.GenerateEvent;
import sirocco.v1.GenerateRequest;
import sirocco.v1.InferenceGrpc;

public final class StreamChat {
  public static void main(String[] given) {
    String[] args = {"127.0.0.1:50051", "What is the capital of Japan?", "60", "100000"};
    System.arraycopy(given, 0, args, 0, given.length);
    long milliseconds = (long) (1000 * Double.parseDouble(args[2]));
    int characters = Integer.parseInt(args[3]);

    ManagedChannel channel = ManagedChannelBuilder.forTarget(args[0]).usePlaintext().build();
    ChatMessage message = ChatMessage.newBuilder().setRole("user").setContent(args[1]).build();
    GenerateRequest request =
        GenerateRequest.newBuilder()
            .setChat(Chat.newBuilder().addMessages(message))
            .setMaxNewTokens(512)
            .build();
    try (Context.CancellableContext call = Context.current().withCancellation()) {
      call.run(() -> stream(channel, request, milliseconds, characters));
      // Leaving the block cancels what still runs: the server stops, and others get its place.
    } catch (StatusRuntimeException error) {
      System.err.println("\n" + error.getStatus().getCode() + ": " + error.getStatus().getDescription());
      System.exit(1);
    } finally {
      channel.shutdown();
    }
  }

  private static void stream(
      ManagedChannel channel, GenerateRequest request, long milliseconds, int characters) {
    Iterator<GenerateEvent> events =
        InferenceGrpc.newBlockingStub(channel)
            .withDeadlineAfter(milliseconds, TimeUnit.MILLISECONDS)
            .generateStream(request);
    int received = 0;
    while (received < characters && events.hasNext()) {
      String text = events.next().getText();
      System.out.print(text);
      System.out.flush();
      received += text.codePointCount(0, text.length());
    }
    System.out.println();
  }
}
