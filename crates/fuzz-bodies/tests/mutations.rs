//! Every body on changed seeds, for about a minute in all.
//!
//! `FUZZ_SECONDS` is the time of all bodies together, and `FUZZ_BODY` the name of the only one to run. The changes are
//! the same in every run; a longer run makes more of them.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use block_transformer_fuzz_bodies::{Body, FILES, MODELS, allow_caught_panics};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// The longest time of one input.
const MOST_TIME: Duration = Duration::from_secs(10);
/// The most memory in bytes that one input may add.
const MOST_MEMORY: usize = 1 << 30;
/// The longest input in bytes.
const LONGEST: usize = 1 << 16;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// Counts the bytes in use.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: every call is that of the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(now, Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(now, Relaxed);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(at, layout) }
    }
}

/// One change of an input. Places are shares of its length, in 1/65536.
#[derive(Clone, Debug)]
enum Change {
    Flip(u16, u8),
    Set(u16, u8),
    /// Replaces 1, 2, 4 or 8 bytes: a length, a count or an offset.
    Number(u16, u8, u64),
    /// Replaces a decimal number.
    Digits(u16, u64),
    Cut(u16),
    Remove(u16, u8),
    Repeat(u16, u8, u8),
    Insert(u16, Vec<u8>),
    /// Replaces the end by the end of another seed.
    Splice(u16, u16, u16),
}

fn change() -> impl Strategy<Value = Change> {
    let number = || {
        prop_oneof![
            Just(0),
            Just(u64::MAX),
            Just(1 << 63),
            Just(u64::from(u32::MAX)),
            Just(1 << 31),
            0..300_u64,
            any::<u64>(),
        ]
    };
    prop_oneof![
        any::<(u16, u8)>().prop_map(|(at, bit)| Change::Flip(at, bit)),
        any::<(u16, u8)>().prop_map(|(at, byte)| Change::Set(at, byte)),
        (any::<u16>(), any::<u8>(), number()).prop_map(|(at, w, n)| Change::Number(at, w, n)),
        (any::<u16>(), number()).prop_map(|(at, n)| Change::Digits(at, n)),
        any::<u16>().prop_map(Change::Cut),
        any::<(u16, u8)>().prop_map(|(at, n)| Change::Remove(at, n)),
        any::<(u16, u8, u8)>().prop_map(|(at, n, times)| Change::Repeat(at, n, times)),
        (any::<u16>(), prop::collection::vec(any::<u8>(), 0..9))
            .prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        any::<(u16, u16, u16)>().prop_map(|(at, seed, from)| Change::Splice(at, seed, from)),
    ]
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let place = |at: u16, length: usize| (usize::from(at) * (length + 1)) >> 16;
        let length = bytes.len();
        match *self {
            Self::Flip(at, bit) => {
                if let Some(byte) = bytes.get_mut(place(at, length)) {
                    *byte ^= 1 << (bit % 8);
                }
            }
            Self::Set(at, value) => {
                if let Some(byte) = bytes.get_mut(place(at, length)) {
                    *byte = value;
                }
            }
            Self::Number(at, width, number) => {
                let at = place(at, length);
                let end = length.min(at + (1 << (width % 4)));
                bytes[at..end].copy_from_slice(&number.to_le_bytes()[..end - at]);
            }
            Self::Digits(at, number) => {
                let from = place(at, length);
                let is_digit = |byte: &u8| byte.is_ascii_digit();
                let Some(start) = bytes[from..].iter().position(is_digit) else { return };
                let rest = &bytes[from + start..];
                let digits = rest.iter().position(|byte| !is_digit(byte)).unwrap_or(rest.len());
                let start = from + start;
                bytes.splice(start..start + digits, number.to_string().into_bytes());
            }
            Self::Cut(at) => bytes.truncate(place(at, length)),
            Self::Remove(at, count) => {
                let at = place(at, length);
                bytes.drain(at..length.min(at + usize::from(count)));
            }
            Self::Repeat(at, count, times) => {
                let at = place(at, length);
                let part = bytes[at..length.min(at + usize::from(count))].repeat(times.into());
                bytes.splice(at..at, part);
            }
            Self::Insert(at, ref part) => {
                let at = place(at, length);
                bytes.splice(at..at, part.iter().copied());
            }
            Self::Splice(at, seed, from) => {
                bytes.truncate(place(at, length));
                let other = &seeds[place(seed, seeds.len() - 1)];
                bytes.extend(&other[place(from, other.len())..]);
            }
        }
        bytes.truncate(LONGEST);
    }
}

fn seeds(body: &Body) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(body.name);
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// Runs `body` until `time` has passed. Returns the number of inputs, and of those that were accepted.
fn mutate(body: &Body, time: Duration) -> (usize, usize) {
    let (seeds, began) = (seeds(body), Instant::now());
    let (inputs, accepted) = (Cell::new(0), Cell::new(0));
    let strategy = (any::<u16>(), prop::collection::vec(change(), 1..6));
    while began.elapsed() < time {
        let config = Config { cases: 16, failure_persistence: None, ..Config::default() };
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&(inputs.get() as u64).to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
        let result = TestRunner::new_with_rng(config, rng).run(&strategy, |(seed, changes)| {
            let mut bytes = seeds[usize::from(seed) % seeds.len()].clone();
            changes.iter().for_each(|change| change.apply(&mut bytes, &seeds));
            let (before, began) = (NOW.load(Relaxed), Instant::now());
            PEAK.store(before, Relaxed);
            let run = std::panic::catch_unwind(|| (body.run)(&bytes));
            let hex = || bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            let Ok(run) = run else {
                return Err(TestCaseError::fail(format!("panicked on {}", hex())));
            };
            let (time, peak) = (began.elapsed(), PEAK.load(Relaxed).saturating_sub(before));
            prop_assert!(time < MOST_TIME, "{time:?} for {}", hex());
            prop_assert!(peak < MOST_MEMORY, "{peak} bytes for {}", hex());
            inputs.set(inputs.get() + 1);
            accepted.set(accepted.get() + usize::from(run));
            Ok(())
        });
        if let Err(error) = result {
            panic!("{}: {error}", body.name);
        }
    }
    (inputs.get(), accepted.get())
}

#[test]
fn changed_seeds_are_read_or_refused() {
    allow_caught_panics();
    let seconds = std::env::var("FUZZ_SECONDS").ok().map_or(60.0, |s| s.parse().unwrap());
    let only = std::env::var("FUZZ_BODY").ok();
    let is_chosen = |body: &&Body| only.as_deref().is_none_or(|name| name == body.name);
    let bodies: Vec<&Body> = FILES.iter().chain(MODELS).filter(is_chosen).collect();
    let time = Duration::from_secs_f64(seconds / bodies.len() as f64);
    for body in &bodies {
        let (inputs, accepted) = mutate(body, time);
        println!("{}: {inputs} inputs, {accepted} accepted", body.name);
        // a slow machine may reach no input that is accepted; the test `seeds` has those
        assert!(inputs > 0 && accepted < inputs, "{inputs}, {accepted}");
    }
    assert!(!bodies.is_empty());
}
