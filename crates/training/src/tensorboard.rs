//! Rows as the records of a TensorBoard event file.
//!
//! A file is a list of TFRecords: the length of the data (8 bytes), a checksum of the length (4), the data, and
//! a checksum of the data (4), all little-endian. The data is a protocol buffer `Event`
//! (`tensorflow/core/util/event.proto`) with a `Summary` of scalars. The messages here have four kinds of
//! fields; TensorBoard's own reader has read the files back.

use std::io;

use crate::row::MetricsRow;

/// The name of the file: TensorBoard reads the files whose names contain `tfevents`.
pub(crate) const FILE: &str = "events.out.tfevents.0.metrics";

/// The first record, which names the version of the format.
pub(crate) fn header() -> Vec<u8> {
    let mut event = Message::default();
    event.double(1, 0.0);
    event.bytes(3, b"brain.Event:2");
    record(&event.0)
}

/// One record per row. The time of a record is the computing time of the run, so that a resumed run writes the
/// same bytes for the same row.
pub(crate) fn encode(rows: &[MetricsRow]) -> io::Result<Vec<u8>> {
    Ok(rows.iter().flat_map(|row| record(&event(row))).collect())
}

fn event(row: &MetricsRow) -> Vec<u8> {
    let mut summary = Message::default();
    let mut scalar = |tag: &str, value: f64| {
        let mut scalar = Message::default();
        scalar.bytes(1, tag.as_bytes());
        scalar.float(2, value as f32);
        summary.bytes(1, &scalar.0);
    };
    scalar("train/loss", row.loss);
    scalar("train/lr", row.lr);
    scalar("train/grad_norm", row.grad_norm);
    scalar("train/tokens", row.tokens as f64);
    for (tag, value) in [
        ("train/mfu", row.mfu),
        ("train/device_memory", row.device_memory.map(|bytes| bytes as f64)),
        ("validation/loss", row.validation_loss),
    ] {
        if let Some(value) = value {
            scalar(tag, value);
        }
    }
    for score in &row.evaluation {
        scalar(&format!("eval/{}/{}", score.task, score.metric), score.value);
    }
    let mut event = Message::default();
    event.double(1, row.seconds);
    event.varint(2, row.step);
    event.bytes(5, &summary.0);
    event.0
}

/// The TFRecord of `data`.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + 16);
    record.extend(length);
    record.extend(checksum(&length).to_le_bytes());
    record.extend(data);
    record.extend(checksum(data).to_le_bytes());
    record
}

/// The masked CRC-32C of TFRecords.
fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A protocol buffer message.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn key(&mut self, field: u64, wire_type: u64) {
        self.raw_varint(field << 3 | wire_type);
    }

    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn varint(&mut self, field: u64, value: u64) {
        self.key(field, 0);
        self.raw_varint(value);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.key(field, 1);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.key(field, 2);
        self.raw_varint(value.len() as u64);
        self.0.extend(value);
    }

    fn float(&mut self, field: u64, value: f32) {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::EvaluationScore;

    /// A field of a message: its number, and its bytes.
    type Field<'a> = (u64, &'a [u8]);

    fn varint(bytes: &mut &[u8]) -> u64 {
        let end = bytes.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
        let (own, rest) = bytes.split_at(end);
        *bytes = rest;
        own.iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f))
    }

    fn fields(mut bytes: &[u8]) -> Vec<Field<'_>> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let size = match key & 7 {
                0 => bytes.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1,
                1 => 8,
                2 => usize::try_from(varint(&mut bytes)).unwrap(),
                5 => 4,
                other => panic!("wire type {other}"),
            };
            let (own, rest) = bytes.split_at(size);
            fields.push((key >> 3, own));
            bytes = rest;
        }
        fields
    }

    /// The data of all records, after their checksums have been compared with the formula of TFRecords.
    fn records(mut file: &[u8]) -> Vec<&[u8]> {
        let mut all = Vec::new();
        let masked = |bytes: &[u8]| {
            // in u64, where a rotation is a multiplication
            let turned = u64::from(crc32c::crc32c(bytes)) << 17;
            let turned = (turned >> 32 | turned & 0xffff_ffff) + 0xa282_ead8;
            (turned as u32).to_le_bytes()
        };
        while !file.is_empty() {
            let length =
                usize::try_from(u64::from_le_bytes(file[..8].try_into().unwrap())).unwrap();
            assert_eq!(file[8..12], masked(&file[..8]));
            let data = &file[12..12 + length];
            assert_eq!(file[12 + length..16 + length], masked(data));
            all.push(data);
            file = &file[16 + length..];
        }
        all
    }

    #[test]
    fn the_first_record_has_the_bytes_that_tensorflow_writes() {
        // of a file of TensorFlow, with the time 0
        let expected = [
            &[24, 0, 0, 0, 0, 0, 0, 0][..],
            &[0xa3, 0x7f, 0x4b, 0x22],
            &[9, 0, 0, 0, 0, 0, 0, 0, 0, 0x1a, 13],
            b"brain.Event:2",
        ];
        let header = header();
        assert_eq!(header[..36], expected.concat());
        assert_eq!(records(&header).len(), 1);
        // the check value of CRC-32C
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_row_is_an_event_with_its_values() {
        let score = |metric: &str, value| EvaluationScore {
            task: "lambada".into(),
            metric: metric.into(),
            value,
            stderr: None,
        };
        let row = MetricsRow {
            step: 300,
            loss: 2.5,
            lr: 1e-3,
            grad_norm: f64::NAN,
            tokens: 1 << 20,
            seconds: 1.25,
            validation_loss: Some(3.0),
            evaluation: vec![score("acc", 0.5), score("perplexity", 12.0)],
            ..MetricsRow::default()
        };
        let file = encode(&[row, MetricsRow::default()]).unwrap();
        let records = records(&file);
        assert_eq!(records.len(), 2);
        let event = fields(records[0]);
        let numbers: Vec<u64> = event.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [1, 2, 5]);
        assert_eq!(event[0].1, 1.25_f64.to_le_bytes());
        assert_eq!(varint(&mut &*event[1].1), 300);
        let scalars: Vec<(String, f32)> = fields(event[2].1)
            .into_iter()
            .map(|(_, scalar)| {
                let scalar = fields(scalar);
                let tag = String::from_utf8(scalar[0].1.to_vec()).unwrap();
                (tag, f32::from_le_bytes(scalar[1].1.try_into().unwrap()))
            })
            .collect();
        let expected = [
            ("train/loss", 2.5),
            ("train/lr", 1e-3),
            ("train/grad_norm", f32::NAN),
            ("train/tokens", 1_048_576.0),
            ("validation/loss", 3.0),
            ("eval/lambada/acc", 0.5),
            ("eval/lambada/perplexity", 12.0),
        ];
        assert_eq!(scalars.len(), expected.len());
        for ((tag, value), (expected_tag, expected)) in scalars.iter().zip(expected) {
            assert_eq!(tag, expected_tag);
            assert!(*value == expected || value.is_nan() && expected.is_nan(), "{tag} {value}");
        }
    }
}
