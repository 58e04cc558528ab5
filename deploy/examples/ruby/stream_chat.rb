# Streams one chat answer.  usage: stream_chat.rb [ADDRESS [QUESTION [SECONDS [CHARACTERS]]]]
#
# SECONDS: the call's deadline. CHARACTERS: after so many it is cancelled.
require "grpc"
require "sirocco/v1/inference_services_pb"

defaults = ["127.0.0.1:50051", "What is the capital of Japan?", "60", "100000"]
address, question, seconds, characters = ARGV + defaults.drop(ARGV.size)

stub = Sirocco::V1::Inference::Stub.new(address, :this_channel_is_insecure)
chat = Sirocco::V1::Chat.new(messages: [{ role: "user", content: question }])
request = Sirocco::V1::GenerateRequest.new(chat: chat, max_new_tokens: 512)
call = stub.generate_stream(request, deadline: Time.now + seconds.to_f, return_op: true)
received = 0
begin
  call.execute.each do |event|
    print event.text
    $stdout.flush
    received += event.text.size
    call.cancel if received >= characters.to_i # the server stops at once, and others get its place
  end
  puts
rescue GRPC::Cancelled
  puts
rescue GRPC::BadStatus => error
  abort "\n#{error.class.name.split('::').last}: #{error.details}"
end
