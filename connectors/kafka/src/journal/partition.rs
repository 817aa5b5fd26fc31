//! Which partition of the journal a key belongs to. Pure.

use std::num::NonZeroU32;

const SEED: u32 = 0x9747_b28c;
const M: u32 = 0x5bd1_e995;

/// The partition of a key, as Java clients choose it (`murmur2`): the order of a key holds as long as the number of
/// partitions stays the same.
pub(crate) fn partition(key: &[u8], partitions: NonZeroU32) -> i32 {
    let positive = murmur2(key) & 0x7fff_ffff;
    i32::try_from(positive % partitions).expect("a number of 31 bits has a smaller rest")
}

fn murmur2(data: &[u8]) -> u32 {
    // Only what fits into 32 bits counts, as in the original.
    let length = u32::try_from(data.len() & 0xffff_ffff).expect("it was cut to 32 bits");
    let mut hash = SEED ^ length;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut word = u32::from_le_bytes(word.try_into().expect("four bytes")).wrapping_mul(M);
        word = (word ^ (word >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ word;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (at, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * at);
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From Kafka's own tests (`UtilsTest.testMurmur2`).
    #[test]
    fn the_hash_is_that_of_java_clients() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }

    #[test]
    fn a_partition_is_one_of_those_there_are() {
        let seven = NonZeroU32::new(7).unwrap();
        let chosen: Vec<i32> = (0..100u32).map(|key| partition(&key.to_le_bytes(), seven)).collect();
        assert!(chosen.iter().all(|at| (0..7).contains(at)));
        assert!((0..7).all(|at| chosen.contains(&at)));
    }
}
