//! Preparations by several ranks, which are threads here.

use super::*;
use block_transformer_collectives::Replica;

/// Runs on each of `size` ranks, and returns what they return; `None` for a rank that panicked.
fn on_ranks<T: Send>(size: usize, run: impl Fn(&Replica) -> T + Sync) -> Vec<Option<T>> {
    std::thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = Replica::on_host(size)
            .into_iter()
            .map(|replica| scope.spawn(move || run(&replica)))
            .collect();
        threads.into_iter().map(|thread| thread.join().ok()).collect()
    })
}

#[test]
fn several_ranks_write_the_files_of_one() {
    let dir = tempfile::tempdir().unwrap();
    let source = large(dir.path());
    for shard_tokens in [700_000, SHARD_TOKENS] {
        let one = dir.path().join(format!("one-{shard_tokens}"));
        let info = preparation(&source, &one, shard_tokens).run(&mut |_| {}).unwrap().info;
        for size in [2, 3] {
            let out = dir.path().join(format!("{size}-{shard_tokens}"));
            let prepared = on_ranks(size, |replica| {
                let tokens = std::cell::Cell::new(0);
                let prepared = preparation(&source, &out, shard_tokens)
                    .run_on(replica, &mut |at| tokens.set(at.tokens))
                    .unwrap();
                (prepared.info, tokens.get())
            });
            let tokens = info.train.tokens + info.validation.tokens;
            assert_eq!(prepared, vec![Some((info.clone(), tokens)); size]);
            assert!(contents(&out) == contents(&one), "{size} ranks, {shard_tokens}");
        }
    }
}

#[test]
fn a_corpus_of_one_document_is_prepared_by_more_ranks_than_batches() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("text"), "line\n".repeat(100)).unwrap();
    let source = DocumentSource::open(&dir.path().join("text")).unwrap();
    let (one, three) = (dir.path().join("one"), dir.path().join("three"));
    preparation(&source, &one, SHARD_TOKENS).run(&mut |_| {}).unwrap();
    on_ranks(3, |replica| {
        preparation(&source, &three, SHARD_TOKENS).run_on(replica, &mut |_| {}).unwrap();
    });
    assert!(contents(&one) == contents(&three));
}

#[test]
fn a_killed_preparation_continues_on_another_number_of_ranks() {
    let dir = tempfile::tempdir().unwrap();
    let source = large(dir.path());
    let (straight, killed) = (dir.path().join("straight"), dir.path().join("killed"));
    preparation(&source, &straight, 700_000).run(&mut |_| {}).unwrap();
    let mut continued = Vec::new();
    for (size, kill_at) in [(3, 2), (2, 2), (1, 1), (3, usize::MAX)] {
        let ended = on_ranks(size, |replica| {
            let (mut calls, mut from) = (0, 0);
            let run = || {
                preparation(&source, &killed, 700_000).run_on(replica, &mut |at| {
                    from = at.continued;
                    assert!(replica.rank() > 0 || calls < kill_at, "killed");
                    calls += 1;
                })
            };
            // the others end with an error, because rank 0 leaves
            let ended = catch_unwind(AssertUnwindSafe(run));
            if ended.is_err() {
                replica.leave();
            }
            (matches!(ended, Ok(Ok(_))), from)
        });
        let ended: Vec<(bool, u64)> = ended.into_iter().flatten().collect();
        continued.push(ended[0].1);
        assert_eq!(ended, vec![(kill_at == usize::MAX, ended[0].1); size]);
    }
    assert!(continued[0] == 0 && continued.is_sorted() && continued[3] > continued[1]);
    assert!(contents(&straight) == contents(&killed));
}

#[test]
fn ranks_with_other_documents_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let copy = |name: &str, change: &dyn Fn(String) -> String| {
        let folder = dir.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        let source = large(&folder);
        let changed = change(std::fs::read_to_string(&source.files()[1]).unwrap());
        std::fs::write(&source.files()[1], changed).unwrap();
        source
    };
    let same = copy("same", &|text| text);
    let other = copy("other", &|text| text.replacen("a line", "a lime", 1));
    let longer = copy("longer", &|text| text + " ");
    let out = dir.path().join("out");
    let errors = |odd: &DocumentSource| {
        on_ranks(3, |replica| {
            let source = if replica.rank() == 1 { odd } else { &same };
            let prepared = preparation(source, &out, 700_000).run_on(replica, &mut |_| {});
            prepared.err().map(|error| (error.is_of_all_ranks(), error.to_string()))
        })
    };
    for error in errors(&longer) {
        let (of_all, error) = error.unwrap().unwrap();
        assert!(of_all && error.contains("the files") && error.contains("rank 1"), "{error}");
        assert!(!out.exists());
    }
    // with as many threads as fit all documents into a batch, only rank 1 sees it
    let errors = errors(&other);
    let seen =
        |text: &str| errors.iter().flatten().flatten().any(|(_, error)| error.contains(text));
    assert!(
        seen("rank 1 reads other documents") || seen("rank 0 reads other documents"),
        "{errors:?}"
    );
}
