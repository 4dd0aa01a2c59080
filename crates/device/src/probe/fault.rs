//! Reasons why a device cannot be used on a machine.

use std::path::PathBuf;

/// A reason why a device cannot be used on this machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A shared library cannot be loaded, or lacks a function.
    #[error("{library} cannot be loaded ({reason})")]
    Library {
        /// The name of the library.
        library: String,
        /// The message of the system.
        reason: String,
    },
    /// A function of a driver returned an error.
    #[error("{call} of {library} failed with code {code}")]
    Call {
        /// The name of the library.
        library: String,
        /// The function.
        call: &'static str,
        /// The code that the function returned.
        code: i32,
    },
    /// There are fewer GPUs than the index says.
    #[error("there is no GPU with index {index}; the NVIDIA driver reports {count} GPUs")]
    Index {
        /// The index of the device.
        index: usize,
        /// GPUs that the driver reports.
        count: usize,
    },
    /// The CUDA headers are in none of the folders where CubeCL looks for them.
    #[error("there is no `cuda_fp16.h` in {}", .0.display())]
    Headers(PathBuf),
    /// There is no folder of CUDA where CubeCL looks for one.
    #[error("there is no CUDA in CUDA_PATH, /usr/local/cuda, /opt/cuda or /usr")]
    Cuda,
    /// No graphics driver offers an adapter.
    #[error("no graphics driver offers an adapter{}", if *.processor { " on the processor" } else { "" })]
    Adapter {
        /// Whether an adapter that computes on the processor was asked for.
        processor: bool,
    },
}

impl Fault {
    /// Returns the remedy, as a part of a sentence.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Library { library, .. } | Self::Call { library, .. } => remedy_of(library),
            Self::Index { .. } => "use a smaller index; `nvidia-smi` lists the GPUs",
            Self::Headers(_) | Self::Cuda => HEADERS,
            Self::Adapter { processor: true } => {
                "install SwiftShader or lavapipe, and let VK_ICD_FILENAMES name its JSON file"
            }
            Self::Adapter { processor: false } => {
                "install the Vulkan driver of the GPU and the Vulkan loader (package libvulkan1)"
            }
        }
    }
}

const HEADERS: &str = "install the CUDA toolkit, or the Python packages nvidia-cuda-runtime-cu12 and \
    nvidia-cuda-cccl-cu12, and let CUDA_PATH name the folder that has their `include` folder";

/// Returns the remedy for a library that cannot be used.
fn remedy_of(library: &str) -> &'static str {
    if library.contains("nvrtc") {
        "install the CUDA toolkit 12, or the Python package nvidia-cuda-nvrtc-cu12, and add the folder \
         of libnvrtc.so.12 to LD_LIBRARY_PATH"
    } else if library.contains("nccl") {
        "install libnccl-dev, or the Python package nvidia-nccl-cu12 with a link `libnccl.so` to its \
         libnccl.so.2, and add the folder to LD_LIBRARY_PATH"
    } else if library.contains("vulkan") {
        "install the Vulkan loader (package libvulkan1) and a driver"
    } else {
        "install the NVIDIA driver; in a container, start it with access to the GPU; `nvidia-smi` must \
         list the GPU"
    }
}
