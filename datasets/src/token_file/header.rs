//! The header of a token file.

/// Bytes of the header.
pub(super) const SIZE: usize = 64;

const MAGIC: &[u8; 8] = b"ZOOTOK\r\n";
const VERSION: u32 = 1;
/// Offset of the checksum of the header, in bytes.
const CHECKSUM: usize = SIZE - 4;

/// The fields of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    pub(super) fn encode(&self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        let mut at = 0;
        let mut put = |field: &[u8]| {
            bytes[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        };
        put(MAGIC);
        for value in [VERSION, self.width, self.vocab_size, self.tokenizer] {
            put(&value.to_le_bytes());
        }
        for value in [self.tokens, self.documents] {
            put(&value.to_le_bytes());
        }
        for value in [self.ids_checksum, self.ends_checksum] {
            put(&value.to_le_bytes());
        }
        let checksum = crc32fast::hash(&bytes[..CHECKSUM]);
        bytes[CHECKSUM..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Decodes and checks the header at the start of `file`; the error says what is wrong.
    pub(super) fn decode(file: &[u8]) -> Result<Self, String> {
        let header = file.first_chunk::<SIZE>().filter(|header| header.starts_with(MAGIC));
        let header = header.ok_or("not a token file")?;
        let u32_at = |at| u32::from_le_bytes(array(header, at));
        let u64_at = |at| u64::from_le_bytes(array(header, at));
        if u32_at(8) != VERSION {
            let version = u32_at(8);
            return Err(format!("version {version} of the format; only {VERSION} is supported"));
        }
        if crc32fast::hash(&header[..CHECKSUM]) != u32_at(CHECKSUM) {
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
        if header.file_size() != Some(file.len() as u64) {
            return Err("the file is cut short or too long".into());
        }
        Ok(header)
    }

    /// The byte after the ids; `None` if it exceeds `u64`.
    fn ids_end(&self) -> Option<u64> {
        self.tokens.checked_mul(u64::from(self.width))?.checked_add(SIZE as u64)
    }

    /// The size of the file in bytes; `None` if it exceeds `u64`.
    fn file_size(&self) -> Option<u64> {
        let ends = self.documents.checked_mul(8)?;
        self.ids_end()?.checked_next_multiple_of(8)?.checked_add(ends)
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes[at + i])
}
