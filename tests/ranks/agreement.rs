//! Ranks that were not started alike.

use crate::job::{fails, job, jobs};
use crate::support::{self, TINY, with_text};

#[test]
fn ranks_with_other_flags_data_or_tokenizers_end_with_one_line() {
    let dir = with_text();
    let dir = dir.path();
    let line = format!("{TINY} --steps 5 --out run");
    fails(
        jobs(dir, &[(1, &line), (1, &format!("{line} --lr 0.5"))]),
        &["lr", "0.003", "rank 1 has 0.5"],
    );
    support::succeeds(dir, "prepare --corpus text.txt --byte-level --out a");
    std::fs::write(dir.join("other.txt"), "another text of some length\n".repeat(900)).unwrap();
    support::succeeds(dir, "prepare --corpus other.txt --byte-level --out b");
    support::succeeds(dir, "prepare --corpus text.txt --vocab-size 300 --out c");
    // the same path is another folder on each machine
    let of = |folder: &str| {
        std::fs::create_dir_all(dir.join(format!("at-{folder}"))).unwrap();
        let to = dir.join(format!("at-{folder}/data"));
        std::os::unix::fs::symlink(dir.join(folder), to).unwrap();
    };
    ["a", "b", "c"].into_iter().for_each(of);
    let train = "train --preset debug-block --corpus data --context 32 --batch 2 --steps 5";
    let script = |other: &str| {
        format!(
            "if [ $OMPI_COMM_WORLD_RANK = 1 ]; then cd at-{other}; else cd at-a; fi; exec \"$@\""
        )
    };
    let out = dir.join("run").display().to_string();
    let train = format!("{train} --out {out}");
    fails(crate::job::scripted(dir, 2, &script("b"), &train), &["the data", "rank 1"]);
    fails(crate::job::scripted(dir, 2, &script("c"), &train), &["the tokenizer", "rank 1"]);
    assert!(!dir.join("run").exists(), "nothing is written before all agree");
}

#[test]
fn an_error_of_all_ranks_is_printed_once() {
    let dir = with_text();
    fails(job(dir.path(), 3, &format!("{TINY} --out run --lr 0")), &["--lr 0"]);
    fails(job(dir.path(), 3, "train --nonsense"), &["--nonsense"]);
    fails(job(dir.path(), 3, &format!("{TINY} --out run")), &["--batch 2", "at least 3"]);
}
