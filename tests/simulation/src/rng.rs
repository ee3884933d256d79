//! Randomness that one number decides.
//!
//! What a scenario holds is drawn in sequence ([`Rng`]). What happens while it is played
//! is drawn by name ([`mix`]): how long the third call of run 7.1 takes depends on the
//! seed and on nothing else, so that a scenario which is cut down for a story changes as
//! little as can be.

/// A sequence of random numbers (`SplitMix64`).
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// The sequence that `seed` begins.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        finish(self.0)
    }

    /// A number from 0 to `below`, which is not reached.
    pub fn below(&mut self, below: u64) -> u64 {
        self.next() % below.max(1)
    }

    /// A number from `low` to `high`, both of which can come.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True `percent` times of a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of `items`, which are some.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        let index = self.below(items.len() as u64) as usize;
        &items[index]
    }
}

/// The number that belongs to a seed and a name.
pub fn mix(seed: u64, name: &[u64]) -> u64 {
    name.iter().fold(finish(seed), |sum, part| {
        finish(sum.wrapping_add(*part).wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5851_f42d)
    })
}

fn finish(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
