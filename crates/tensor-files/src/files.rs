//! One file of tensors, or several with an index.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::TensorFileError;
use crate::index::Index;
#[cfg(feature = "pytorch")]
use crate::pytorch::PytorchFile;
use crate::safetensors::SafetensorsFile;
use crate::source::{HostTensor, TensorSource};

/// An opened file of tensors, or several with an index.
#[derive(Debug)]
pub struct TensorFiles {
    files: Vec<Opened>,
    /// The file that each tensor is in.
    places: BTreeMap<String, usize>,
    paths: Vec<PathBuf>,
}

#[derive(Debug)]
enum Opened {
    Safetensors(SafetensorsFile),
    #[cfg(feature = "pytorch")]
    Pytorch(PytorchFile),
}

impl TensorFiles {
    /// Opens a `.safetensors`, `.bin`, `.pt` or `.pth` file, or the files of an index
    /// (`.safetensors.index.json`, `.bin.index.json`). Reads names and shapes, not values.
    ///
    /// # Errors
    /// When a file cannot be read or is damaged, the index names a file outside of its folder, or index and
    /// files do not hold the same tensors.
    pub fn open(path: &Path) -> Result<Self, TensorFileError> {
        if name(path).ends_with(".index.json") {
            return Self::open_index(path);
        }
        let file = Opened::open(path)?;
        let places = file.names().into_iter().map(|name| (name, 0)).collect();
        Ok(Self { files: vec![file], places, paths: vec![path.into()] })
    }

    /// Whether the name of a file says a format that [`open`](Self::open) reads.
    pub fn has_format(path: &Path) -> bool {
        let endings =
            [".safetensors", ".bin", ".pt", ".pth", ".safetensors.index.json", ".bin.index.json"];
        endings.iter().any(|ending| name(path).ends_with(ending))
    }

    /// The files that hold the tensors.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    fn open_index(path: &Path) -> Result<Self, TensorFileError> {
        let index = Index::read(path)?;
        let (mut files, mut paths) = (Vec::new(), Vec::new());
        let mut places = BTreeMap::new();
        let refuse = |reason: String| TensorFileError::format(path, "index of shards", reason);
        for (name, shard) in index.files(path)? {
            let file = Opened::open(&shard)?;
            for tensor in file.names() {
                if index.weight_map.get(&tensor) != Some(&name) {
                    return Err(refuse(format!("it does not list the tensor {tensor} of {name}")));
                }
                places.insert(tensor, files.len());
            }
            files.push(file);
            paths.push(shard);
        }
        if let Some((tensor, file)) =
            index.weight_map.iter().find(|(t, _)| !places.contains_key(*t))
        {
            return Err(refuse(format!(
                "it lists the tensor {tensor}, which {file} does not have"
            )));
        }
        Ok(Self { files, places, paths })
    }
}

impl TensorSource for TensorFiles {
    fn names(&self) -> Vec<String> {
        self.places.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let shape = match &self.files[*self.places.get(name)?] {
            Opened::Safetensors(file) => file.shape(name),
            #[cfg(feature = "pytorch")]
            Opened::Pytorch(file) => file.shape(name),
        };
        shape.map(<[usize]>::to_vec)
    }

    fn read(&self, name: &str) -> Result<Option<HostTensor>, TensorFileError> {
        let Some(&place) = self.places.get(name) else { return Ok(None) };
        match &self.files[place] {
            Opened::Safetensors(file) => file.read(name),
            #[cfg(feature = "pytorch")]
            Opened::Pytorch(file) => file.read(name),
        }
    }
}

impl Opened {
    fn open(path: &Path) -> Result<Self, TensorFileError> {
        let name = name(path);
        if name.ends_with(".safetensors") {
            return SafetensorsFile::open(path).map(Self::Safetensors);
        }
        if [".bin", ".pt", ".pth"].iter().any(|ending| name.ends_with(ending)) {
            #[cfg(feature = "pytorch")]
            return PytorchFile::open(path).map(Self::Pytorch);
            #[cfg(not(feature = "pytorch"))]
            return Err(TensorFileError::format(
                path,
                "PyTorch file",
                "this build does not read PyTorch files: its feature `pytorch` is off",
            ));
        }
        Err(TensorFileError::UnknownFormat(path.into()))
    }

    fn names(&self) -> Vec<String> {
        match self {
            Self::Safetensors(file) => file.names(),
            #[cfg(feature = "pytorch")]
            Self::Pytorch(file) => file.names(),
        }
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase()
}
