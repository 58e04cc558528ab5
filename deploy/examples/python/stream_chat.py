"""Streams one chat answer.  usage: stream_chat.py [ADDRESS [QUESTION [SECONDS [CHARACTERS]]]]

SECONDS: the call's deadline. CHARACTERS: after so many it is cancelled.
"""
import sys

import grpc
from sirocco.v1 import inference_pb2 as pb
from sirocco.v1 import inference_pb2_grpc as rpc

defaults = ["127.0.0.1:50051", "What is the capital of Japan?", "60", "100000"]
address, question, seconds, characters = sys.argv[1:] + defaults[len(sys.argv) - 1:]

with grpc.insecure_channel(address) as channel:
    chat = pb.Chat(messages=[pb.ChatMessage(role="user", content=question)])
    request = pb.GenerateRequest(chat=chat, max_new_tokens=512)
    call = rpc.InferenceStub(channel).GenerateStream(request, timeout=float(seconds))
    received = 0
    try:
        for event in call:
            print(event.text, end="", flush=True)
            received += len(event.text)
            if received >= int(characters):
                call.cancel()  # the server stops at once, and others get its place
                break
        print()
    except grpc.RpcError as error:
        sys.exit(f"\n{error.code().name}: {error.details()}")
