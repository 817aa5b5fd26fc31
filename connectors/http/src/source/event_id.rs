//! Ids of events.

use uuid::{Builder, Uuid};

/// Of the ids that are made from a sender's: version 5 UUIDs under it.
const NAMESPACE: Uuid = Uuid::from_u128(0x0f0e_ba51_d2c3_5c1e_9a7b_6f2e_4d11_80c4);

/// A new id for an event whose sender gave none: a version 7 UUID, which sorts by when it came.
pub fn fresh(received: i64) -> String {
    let millis = u64::try_from(received / 1000).unwrap_or(0);
    Builder::from_unix_timestamp_millis(millis, &rand::random()).into_uuid().to_string()
}

/// The id of an event that its sender told apart by these parts together: the same for the same, however long they are.
pub fn stable(parts: &[&str]) -> String {
    let mut name = Vec::new();
    for part in parts {
        name.extend_from_slice(&(part.len() as u64).to_le_bytes());
        name.extend_from_slice(part.as_bytes());
    }
    Uuid::new_v5(&NAMESPACE, &name).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_parts_have_the_same_id_and_no_others() {
        assert_eq!(stable(&["/s", "1"]), stable(&["/s", "1"]));
        assert_eq!(
            stable(&["/s", "1"]),
            "f263ae68-d37e-59cb-b331-c73b280bbde1",
            "an id must not change with a new version"
        );
        assert_ne!(stable(&["/s", "1"]), stable(&["/s1", ""]));
        assert_ne!(stable(&["", ""]), stable(&[""]));
    }

    #[test]
    fn a_new_id_is_unique_and_begins_with_its_time() {
        let (a, b) = (fresh(1_795_372_440_123_456), fresh(1_795_372_440_123_456));
        assert_ne!(a, b);
        let uuid: Uuid = a.parse().unwrap();
        assert_eq!(uuid.get_version_num(), 7);
        assert!(a.starts_with(&b[..13]));
        assert!(fresh(-1).starts_with("00000000-0000-7"));
    }
}
