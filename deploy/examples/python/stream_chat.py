"""Streams one chat answer.  usage: stream_chat.py [ADDRESS [QUESTION]]"""
import sys

import grpc
from sirocco.v1 import inference_pb2 as pb
from sirocco.v1 import inference_pb2_grpc as rpc

address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:50051"
question = sys.argv[2] if len(sys.argv) > 2 else "What is the capital of Japan?"

with grpc.insecure_channel(address) as channel:
    chat = pb.Chat(messages=[pb.ChatMessage(role="user", content=question)])
    request = pb.GenerateRequest(chat=chat, max_new_tokens=128)
    for event in rpc.InferenceStub(channel).GenerateStream(request):
        print(event.text, end="", flush=True)
    print()
