//! The seeds of the fuzz targets, each read as its name says.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use block_transformer_fuzz_bodies::{Body, FILES, MODELS};

fn seeds(body: &Body) -> Vec<(String, Vec<u8>)> {
    let folder: PathBuf =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(body.name);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{folder:?}: {e}"));
    let entries = entries.map(|entry| entry.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    entries.map(|path| (name(&path), std::fs::read(&path).unwrap())).collect()
}

/// Valid files are accepted; files that a hostile author could give are refused, within seconds.
#[test]
fn seeds_are_accepted_or_refused_as_their_names_say() {
    let (mut wrong, mut slow) = (Vec::new(), Vec::new());
    for body in FILES.iter().chain(MODELS) {
        let seeds = seeds(body);
        for kind in ["good", "bad"] {
            let has = seeds.iter().any(|(name, _)| name.starts_with(kind));
            assert!(has, "{} has no {kind} seed", body.name);
        }
        for (name, bytes) in seeds {
            let place = format!("{}/{name}", body.name);
            let began = Instant::now();
            let accepted = std::panic::catch_unwind(|| (body.run)(&bytes));
            match accepted {
                Err(_) => wrong.push(format!("{place} panicked")),
                Ok(true) if name.starts_with("bad") => wrong.push(format!("{place} accepted")),
                Ok(false) if name.starts_with("good") => wrong.push(format!("{place} refused")),
                Ok(_) => {}
            }
            if began.elapsed() > Duration::from_secs(5) {
                slow.push(format!("{place} took {:?}", began.elapsed()));
            }
        }
    }
    assert!(wrong.is_empty() && slow.is_empty(), "{wrong:#?} {slow:#?}");
}
