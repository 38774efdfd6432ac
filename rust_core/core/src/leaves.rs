//! Hashes of the log's tree (RFC 6962, section 2.1): of a line as its leaf, and of neighbours up to their root.
//!
//! Only the writing of a log uses them. Who checks one (`signalwarden log verify`) has code of its own.

use sha2::{Digest, Sha256};

/// Bytes of a hash.
pub const HASH_BYTES: usize = 32;
/// Before a leaf, and before two neighbours: so that neither is ever taken for the other.
const LEAF: [u8; 1] = [0];
const NODE: [u8; 1] = [1];

/// Of a line without its newline.
pub fn leaf(line: &[u8]) -> [u8; HASH_BYTES] {
    Sha256::new().chain_update(LEAF).chain_update(line).finalize().into()
}

/// The root over hashes of one level that stand one after the other; `None` if they are no whole hashes, or none.
pub fn root(hashes: &[u8]) -> Option<[u8; HASH_BYTES]> {
    let (level, rest) = hashes.as_chunks::<HASH_BYTES>();
    if !rest.is_empty() {
        return None;
    }
    let mut level = level.to_vec();
    while level.len() > 1 {
        level = level.chunks(2).filter_map(above).collect();
    }
    level.pop()
}

/// Of two neighbours; one that has none goes up as it is.
fn above(pair: &[[u8; HASH_BYTES]]) -> Option<[u8; HASH_BYTES]> {
    match pair {
        [left, right] => {
            Some(Sha256::new().chain_update(NODE).chain_update(left).chain_update(right).finalize().into())
        }
        [alone] => Some(*alone),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    }

    /// The inputs and roots of the tests of Certificate Transparency.
    #[test]
    fn leaves_and_roots_are_those_of_certificate_transparency() {
        let lines: [&[u8]; 8] = [
            b"",
            b"\x00",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
        let roots = [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let mut hashes = Vec::new();
        for (line, expected) in lines.iter().zip(roots) {
            hashes.extend_from_slice(&leaf(line));
            assert_eq!(hex(&root(&hashes).unwrap()), expected);
        }
        assert_eq!(root(&[]), None);
        assert_eq!(root(&hashes[1..]), None);
    }
}
