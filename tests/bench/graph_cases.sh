#!/bin/bash
# The cases of graph_bench.cu, a process each: graph_cases.sh PROGRAM > lines of JSON.
set -u
bench=$1
run() { timeout 20 "$bench" "$@" || echo "{\"case\": \"$*\", \"failed\": $?}"; }

# What memory is given in: by nodes.
for nodes in 1 2 4 8 16 32 64 96 128 160 192 224 256 320; do run nodes=$nodes; done
# Of what: parameters, edges, clusters, kernels, local memory, products of the library.
for params in 256 512 1024 2048 4096; do run params=$params; done
run edge=full
run edge=full params=1024
for cluster in 2 8; do run cluster=$cluster; done
run kernels=8
run kernels=8 cluster=8 params=512
run stack=1
run library=1
run library=2
for nodes in 50 100 150; do run library=1 nodes=$nodes; done
# As many as the program makes.
run graphs=256
run graphs=256 params=512 kernels=8 cluster=4
# What making them takes.
for flags in 2 8; do run flags=$flags upload=0; done
run upload=0
run meminfo=0 inspect=0
run attribute=1
for threads in 2 4 8; do
  run threads=$threads share=capture graphs=128 meminfo=0
  run threads=$threads share=instantiate graphs=128 meminfo=0
done
run threads=1 graphs=128 meminfo=0
run threads=4 share=instantiate library=1 graphs=128 meminfo=0
