//! Reading the texts of `/proc`.

use std::fs::File;
use std::io::{ErrorKind, Read};

/// Bytes that one read of a file of `/proc` may give.
const CHUNK: usize = 4096;

/// Bytes of one file of `/proc` that are read into memory. None that is read so comes near: `status`
/// has 700 KiB where a process is in all the groups that it can be in.
const MOST: usize = 1 << 20;

/// All of a file of `/proc`, or the first [`MOST`] bytes.
///
/// The kernel gives a page at a time (`seq_file`), and none of these files says how long it is:
/// `read_to_end` would ask for that, and begin with 32 bytes.
///
/// # Errors
/// The kernel's refusal.
pub(super) fn read_whole(file: &mut File) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut len = 0;
    while len < MOST {
        if bytes.len() - len < CHUNK {
            bytes.resize((len + 2 * CHUNK).min(MOST), 0);
        }
        match file.read(&mut bytes[len..]) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => (),
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(len);
    Ok(bytes)
}

/// A field of `/proc/PID/status`, without the white space around it.
pub(super) fn field<'a>(status: &'a [u8], name: &[u8]) -> Option<&'a str> {
    status
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(name))
        .and_then(|field| std::str::from_utf8(field.trim_ascii()).ok())
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;

    #[test]
    fn files_of_any_length_are_read_whole() {
        for len in [0, 1, CHUNK, 2 * CHUNK, 20 * CHUNK + 7] {
            let bytes: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes).unwrap();
            file.rewind().unwrap();
            assert!(read_whole(&mut file).unwrap() == bytes, "{len} bytes");
        }
        // A terabyte that takes no room.
        let mut endless = tempfile::tempfile().unwrap();
        endless.set_len(1 << 40).unwrap();
        assert_eq!(read_whole(&mut endless).unwrap().len(), MOST);
    }
}
