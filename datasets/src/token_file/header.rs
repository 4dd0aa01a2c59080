//! The header of a token file.

use crate::documents::integer;

/// Bytes of the header.
pub(super) const SIZE: usize = 64;

const MAGIC: &[u8; 8] = b"ZOOTOK\r\n";
const VERSION: u32 = 1;
/// Offset of the checksum of the header, in bytes.
const CHECKSUM: usize = SIZE - 4;

/// The fields of a header.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Header {
    /// Bytes per id, 2 or 4.
    pub width: u32,
    /// Ids of the tokenizer.
    pub vocab_size: u32,
    /// Fingerprint of the tokenizer.
    pub tokenizer: u32,
    /// Ids in the file.
    pub tokens: u64,
    /// Documents in the file.
    pub documents: u64,
    /// CRC-32 of the ids.
    pub ids_checksum: u32,
    /// CRC-32 of the document ends.
    pub ends_checksum: u32,
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let first = [VERSION, self.width, self.vocab_size, self.tokenizer];
        bytes.extend(first.iter().flat_map(|value| value.to_le_bytes()));
        bytes.extend([self.tokens, self.documents].iter().flat_map(|value| value.to_le_bytes()));
        let checksums = [self.ids_checksum, self.ends_checksum];
        bytes.extend(checksums.iter().flat_map(|value| value.to_le_bytes()));
        bytes.resize(CHECKSUM, 0);
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    /// Decodes and checks the header at the start of `file`, which has `size` bytes; the error says
    /// what is wrong.
    pub(super) fn decode(file: &[u8], size: u64) -> Result<Self, String> {
        if file.len() < SIZE || !file.starts_with(MAGIC) {
            return Err("not a token file".into());
        }
        let u32_at = |at| integer(file, at, 4) as u32;
        let u64_at = |at| integer(file, at, 8) as u64;
        let version = u32_at(8);
        if version != VERSION {
            return Err(format!("version {version} of the format; only {VERSION} is supported"));
        }
        if crc32fast::hash(&file[..CHECKSUM]) != u32_at(CHECKSUM) {
            return Err("the header is damaged".into());
        }
        let header = Self {
            width: u32_at(12),
            vocab_size: u32_at(16),
            tokenizer: u32_at(20),
            tokens: u64_at(24),
            documents: u64_at(32),
            ids_checksum: u32_at(40),
            ends_checksum: u32_at(44),
        };
        if header.width != 2 && header.width != 4 {
            return Err(format!("ids of {} bytes", header.width));
        }
        if header.file_size() != Some(size) {
            return Err("the file is cut short or too long".into());
        }
        Ok(header)
    }

    /// The size of the file in bytes; `None` if it exceeds `u64`.
    fn file_size(&self) -> Option<u64> {
        let (ids, ends) = (self.tokens.checked_mul(u64::from(self.width))?, self.documents);
        let ids_end = ids.checked_add(SIZE as u64)?.checked_next_multiple_of(8)?;
        ids_end.checked_add(ends.checked_mul(8)?)
    }
}
