#!/bin/bash
# The cases of graph_bench.cu, a process each: graph_cases.sh PROGRAM > lines of JSON.
set -u
bench=$1
run() { timeout 20 "$bench" "$@" || echo "{\"case\": \"$*\", \"failed\": $?}"; }

# What memory is given in: by nodes.
for nodes in 1 12 137 300; do run graphs=256 nodes=$nodes; done
run graphs=192 nodes=16 last=320 step=16 meminfo=0 inspect=0
run graphs=128 nodes=100 last=240 step=4 meminfo=0 inspect=0
run graphs=128 nodes=133 last=252 step=7 library=1 products=3 of=7 meminfo=0 inspect=0
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
# As the 256 of gemma3-1b, of products of the library and of kernels alone.
step="graphs=256 nodes=189 small=64 small_nodes=137 kernels=8 cluster=4 params=256"
for products in "library=1 products=3 of=7" ""; do
  run $step $products
  for threads in 1 2 4; do run $step $products threads=$threads share=instantiate meminfo=0; done
  run $step $products threads=2 share=capture meminfo=0
done
run $step library=1 products=3 of=7 first=1
