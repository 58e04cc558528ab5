"""As stream_chat.py, with asyncio.  usage: stream_chat_async.py [ADDRESS [QUESTION [SECONDS [CHARACTERS]]]]"""
import asyncio
import sys

import grpc
from sirocco.v1 import inference_pb2 as pb
from sirocco.v1 import inference_pb2_grpc as rpc


async def main(address="127.0.0.1:50051", question="What is the capital of Japan?", seconds="60",
               characters="100000"):
    async with grpc.aio.insecure_channel(address) as channel:
        chat = pb.Chat(messages=[pb.ChatMessage(role="user", content=question)])
        request = pb.GenerateRequest(chat=chat, max_new_tokens=512)
        call = rpc.InferenceStub(channel).GenerateStream(request, timeout=float(seconds))
        received = 0
        async for event in call:
            print(event.text, end="", flush=True)
            received += len(event.text)
            if received >= int(characters):
                call.cancel()  # so does cancelling the task that reads
                break
        print()


try:
    asyncio.run(main(*sys.argv[1:]))
except grpc.aio.AioRpcError as error:
    sys.exit(f"\n{error.code().name}: {error.details()}")
