//! Every target over its seeds, and over thousands of changes to them that are the same each time.

use std::collections::BTreeSet;
use std::fs;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sentinel_fuzz::{TARGETS, root, seeds};

/// How many changed inputs each target is given.
const CHANGED: usize = 2_000;

/// The largest input that is made.
const LARGEST: usize = 256 << 10;

/// Says which input it was when a target panics.
struct Input<'a>(&'a [u8]);

impl Drop for Input<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the input was b\"{}\"", self.0.escape_ascii());
        }
    }
}

fn feed(name: &str) {
    let (_, target) = TARGETS
        .iter()
        .find(|(known, _)| *known == name)
        .expect("a target");
    let seeds = seeds::of(name);
    assert!(!seeds.is_empty(), "there are seeds for {name}");
    for seed in &seeds {
        let _input = Input(seed);
        target(seed);
    }
    target(&[]);
    let number = name
        .bytes()
        .fold(0, |number, byte| number * 31 + u64::from(byte));
    let mut random = StdRng::seed_from_u64(number);
    for _ in 0..CHANGED {
        let input = changed(&seeds, &mut random);
        let _input = Input(&input);
        target(&input);
    }
}

/// A seed with a few changes.
fn changed(seeds: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let mut input = pick(seeds, random).clone();
    for _ in 0..random.random_range(1..=4) {
        let at = random.random_range(0..=input.len());
        let end = random.random_range(at..=input.len());
        match random.random_range(0..8) {
            // A bit, a byte, and one that means something in most of the syntaxes.
            0 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << random.random_range(0..8);
                }
            }
            1 => input.insert(at, random.random_range(0..=u8::MAX)),
            2 => input.insert(
                at,
                *pick(b"\"'\\{}[]()<>:/?#@%&=!~,;.- \n\t\0*$|^0919", random),
            ),
            // The end is missing, or a part.
            3 => input.truncate(at),
            4 => {
                input.drain(at..end);
            }
            // A part of another seed, or of this one once more.
            5 => {
                let other = pick(seeds, random);
                let from = random.random_range(0..=other.len());
                input.splice(at..end, other[from..].iter().copied());
            }
            6 => {
                let part = input[at..end].to_vec();
                input.splice(at..at, part);
            }
            // All of it, or a part, many times over.
            _ => {
                let part = input[at..end.min(at + 64)].to_vec();
                let most = LARGEST / part.len().max(1);
                let times = 1_usize << random.random_range(0..=most.max(1).ilog2().min(12));
                input.splice(at..at, part.repeat(times));
            }
        }
        input.truncate(LARGEST);
    }
    input
}

fn pick<'a, T>(of: &'a [T], random: &mut StdRng) -> &'a T {
    &of[random.random_range(0..of.len())]
}

macro_rules! feeds {
    ($($name:ident),*) => {
        $(
            #[test]
            fn $name() {
                feed(stringify!($name));
            }
        )*

        #[test]
        fn every_target_has_a_test_a_program_and_seeds() {
            let tested = BTreeSet::from([$(stringify!($name)),*]);
            let known: BTreeSet<_> = TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(tested, known);
            let manifest = fs::read_to_string(root().join("tests/fuzz/Cargo.toml")).unwrap();
            for name in known {
                let program = format!("[[bin]]\nname = \"{name}\"\npath = \"targets/{name}.rs\"\nrequired-features = [\"targets\"]\n");
                assert!(manifest.contains(&program), "{name}");
                let text = fs::read_to_string(root().join(format!("tests/fuzz/targets/{name}.rs"))).unwrap();
                assert!(text.contains(&format!("lay_out(\"{name}\")")), "{name}");
                assert!(text.contains(&format!("sentinel_fuzz::{name}(bytes)")), "{name}");
            }
            assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
        }
    };
}

feeds!(
    webhook,
    alerts,
    active,
    matcher,
    template,
    target,
    url,
    url_template,
    names,
    policy,
    ansible,
    record,
    log,
    component,
    schema
);
