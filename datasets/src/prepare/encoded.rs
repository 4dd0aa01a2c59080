//! The token ids of a batch, as they travel between ranks.

use block_transformer_collectives::Message;
use block_transformer_text::Tokenizer;

use super::batches::Batch;
use crate::error::DatasetError;

/// The ids of the documents of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Encoded {
    /// The checksum of the batch on the rank that tokenized it.
    pub(super) checksum: u32,
    /// The ids of each document.
    pub(super) ids: Vec<Vec<u32>>,
}

impl Encoded {
    /// Tokenizes a batch on all threads.
    pub(super) fn new(batch: &Batch, tokenizer: &Tokenizer) -> Result<Self, DatasetError> {
        Ok(Self { checksum: batch.checksum, ids: tokenizer.encode_batch(&batch.texts)? })
    }
}

/// In u32, little-endian: the checksum, the bytes per id, the number of documents, and the number of ids of each.
/// Then all ids, as u16 if they fit.
impl Message for Encoded {
    fn to_bytes(&self) -> Vec<u8> {
        let ids = || self.ids.iter().flatten();
        let width = if ids().all(|&id| id <= u32::from(u16::MAX)) { 2 } else { 4 };
        let head = [self.checksum, width, self.ids.len() as u32];
        let lengths = self.ids.iter().map(|ids| ids.len() as u32);
        let mut bytes: Vec<u8> =
            head.into_iter().chain(lengths).flat_map(u32::to_le_bytes).collect();
        if width == 2 {
            bytes.extend(ids().flat_map(|&id| (id as u16).to_le_bytes()));
        } else {
            bytes.extend(ids().flat_map(|&id| id.to_le_bytes()));
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let number = |bytes: &mut &[u8]| {
            let (number, rest) = bytes.split_first_chunk()?;
            *bytes = rest;
            Some(u32::from_le_bytes(*number))
        };
        let mut rest = bytes;
        let [checksum, width, documents] = [(); 3].map(|()| number(&mut rest));
        let (checksum, width, documents) = (checksum?, width? as usize, documents?);
        let lengths: Option<Vec<u32>> = (0..documents).map(|_| number(&mut rest)).collect();
        let mut document = |length: u32| {
            let (own, after) = rest.split_at_checked(length as usize * width)?;
            rest = after;
            match width {
                2 => Some(
                    own.as_chunks().0.iter().map(|id| u16::from_le_bytes(*id).into()).collect(),
                ),
                4 => Some(own.as_chunks().0.iter().map(|id| u32::from_le_bytes(*id)).collect()),
                _ => None,
            }
        };
        let ids = lengths?.into_iter().map(&mut document).collect::<Option<Vec<Vec<u32>>>>()?;
        rest.is_empty().then_some(Self { checksum, ids })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_travel_without_a_change_and_a_cut_is_noticed() {
        for largest in [65_535, 65_536] {
            let encoded = Encoded { checksum: 7, ids: vec![vec![1, largest], vec![], vec![3]] };
            let bytes = encoded.to_bytes();
            assert_eq!(bytes.len(), 24 + 3 * if largest == 65_535 { 2 } else { 4 });
            assert_eq!(Encoded::from_bytes(&bytes), Some(encoded));
            for length in 0..bytes.len() {
                assert_eq!(Encoded::from_bytes(&bytes[..length]), None, "{length}");
            }
        }
    }
}
