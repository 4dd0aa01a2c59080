//! The files of evaluation tasks.

/// A file that an evaluation task reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskFile {
    /// Its name in the folder of task files.
    pub name: &'static str,
    /// The way to obtain it.
    pub source: TaskSource,
}

/// The way to obtain a task file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskSource {
    /// A download.
    Url {
        /// The address, of a fixed version if there are several.
        url: &'static str,
        /// SHA-256 of the file.
        sha256: &'static str,
    },
    /// Instructions to obtain the file by hand.
    ByHand(&'static str),
}

const fn download(name: &'static str, url: &'static str, sha256: &'static str) -> TaskFile {
    TaskFile { name, source: TaskSource::Url { url, sha256 } }
}

const fn by_hand(name: &'static str, instructions: &'static str) -> TaskFile {
    TaskFile { name, source: TaskSource::ByHand(instructions) }
}

/// HellaSwag, validation.
pub const HELLASWAG: TaskFile = download(
    "hellaswag_val.jsonl",
    "https://raw.githubusercontent.com/rowanz/hellaswag/a29ff8e9a04bba4bd6588223785ce105328adc57/data/hellaswag_val.jsonl",
    "0aa3b88843990f3f10a97b9575c94d7b71fb2205240ba04ae4884d9e9c992588",
);

/// PIQA, validation.
pub const PIQA: TaskFile = download(
    "piqa_valid.jsonl",
    "https://raw.githubusercontent.com/ybisk/ybisk.github.io/21edab439af693b961be2f069e8690a88d3b4e37/piqa/data/valid.jsonl",
    "93503cc97c679e459b065c3d13e848282e44b2a25213985bed3e5d458abef72d",
);

/// The answers of [`PIQA`].
pub const PIQA_LABELS: TaskFile = download(
    "piqa_valid-labels.lst",
    "https://raw.githubusercontent.com/ybisk/ybisk.github.io/21edab439af693b961be2f069e8690a88d3b4e37/piqa/data/valid-labels.lst",
    "b4192dc3a2a0363d9d60ccf79800cbbe2f32ebb17726efdde6970e0b8131bceb",
);

/// LAMBADA, test, in OpenAI's version.
pub const LAMBADA: TaskFile = download(
    "lambada_test.jsonl",
    "https://openaipublic.blob.core.windows.net/gpt-2/data/lambada_test.jsonl",
    "4aa8d02cd17c719165fc8a7887fddd641f43fcafa4b1c806ca8abc31fabdb226",
);

/// ARC, easy, test.
pub const ARC_EASY: TaskFile = by_hand(
    "ARC-Easy-test.jsonl",
    "extract ARC-Easy-Test.jsonl from the Allen Institute's ARC-V1-Feb2018.zip",
);

/// SciQ, test.
pub const SCIQ: TaskFile =
    by_hand("sciq_test.json", "extract test.json from the Allen Institute's SciQ.zip");

/// WikiText-2, test.
pub const WIKITEXT: TaskFile = by_hand("wiki.test.raw", "extract it from wikitext-2-raw-v1.zip");

/// WinoGrande, validation.
pub const WINOGRANDE: TaskFile = by_hand(
    "winogrande_xl_dev.jsonl",
    "extract dev.jsonl from the Allen Institute's winogrande_1.1.zip",
);
