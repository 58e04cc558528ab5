"""Calls the server without stubs: what it offers, it tells by reflection.  usage: reflect.py [ADDRESS [PROMPT]]

(pip install grpcio-reflection)
"""
import sys

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase)

address, prompt = sys.argv[1:] + ["127.0.0.1:50051", "The wind"][len(sys.argv) - 1:]

with grpc.insecure_channel(address) as channel:
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    method = pool.FindServiceByName("sirocco.v1.Inference").FindMethodByName("Generate")
    request = json_format.ParseDict({"prompt": prompt, "maxNewTokens": 20},
                                    GetMessageClass(method.input_type)())
    call = channel.unary_unary(
        "/sirocco.v1.Inference/Generate", request_serializer=type(request).SerializeToString,
        response_deserializer=GetMessageClass(method.output_type).FromString)
    print(json_format.MessageToJson(call(request)))
