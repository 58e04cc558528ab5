// Streams one chat answer.  usage: stream_chat [ADDRESS [QUESTION [SECONDS [CHARACTERS]]]]
//
// SECONDS: the call's deadline. CHARACTERS: after so many it is cancelled.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	siroccov1 "sirocco/v1"
)

func main() {
	args := []string{"127.0.0.1:50051", "What is the capital of Japan?", "60", "100000"}
	copy(args, os.Args[1:])
	seconds, err := time.ParseDuration(args[2] + "s")
	check(err)
	characters, err := strconv.Atoi(args[3])
	check(err)

	connection, err := grpc.Dial(args[0], grpc.WithInsecure())
	check(err)
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), seconds)
	defer cancel()

	maxNewTokens := uint32(512)
	stream, err := siroccov1.NewInferenceClient(connection).GenerateStream(ctx, &siroccov1.GenerateRequest{
		Input: &siroccov1.GenerateRequest_Chat{Chat: &siroccov1.Chat{
			Messages: []*siroccov1.ChatMessage{{Role: "user", Content: args[1]}}}},
		MaxNewTokens: &maxNewTokens,
	})
	check(err)
	for received := 0; ; {
		event, err := stream.Recv()
		if err == io.EOF {
			break
		}
		check(err)
		fmt.Print(event.Text)
		received += len([]rune(event.Text))
		if received >= characters {
			cancel() // the server stops at once, and others get its place
			stream.Recv() // waits until that has been said
			break
		}
	}
	fmt.Println()
}

func check(err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "\n%s: %s\n", status.Code(err), status.Convert(err).Message())
		os.Exit(1)
	}
}
