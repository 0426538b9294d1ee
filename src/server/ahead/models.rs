//! Models of reading ahead: helpers and readers of one file, whoever comes first.

use super::tests::{byte_at, bytes_of_the_process};
use super::*;
use crate::common::models::explore;
use crate::common::sync::thread;
use crate::server::admission::models::ModelTasks;

/// Whoever fills a window, and however readers of one handle pass each other, all bytes are those of the process, nobody waits for ever,
/// and no helper is left in the end.
#[test]
fn readers_of_one_handle_and_helpers_get_the_bytes_of_the_process() {
    explore(50, || {
        let tasks = Arc::<ModelTasks>::default();
        let (ahead, handle) = bytes_of_the_process(Arc::clone(&tasks) as _);
        let readers: Vec<_> = [0, 1]
            .into_iter()
            .map(|_| {
                let ahead = Arc::clone(&ahead);
                thread::spawn(move || {
                    for offset in (0..5).map(|number| number * 200_000) {
                        let mut buffer = vec![0; 200_000];
                        let read = ahead.fs.read(handle, offset, &mut buffer, Some(&ahead));
                        assert_eq!(read, Ok(buffer.len()));
                        let mut all = buffer.iter().zip(offset..);
                        assert!(all.all(|(byte, at)| *byte == byte_at(at)), "{offset}");
                    }
                })
            })
            .collect();
        for reader in readers {
            reader.join().expect("it has read all of it");
        }
        ahead.end();
        tasks.join();
        let state = ahead.state.lock();
        assert_eq!((state.helpers, state.stuck, state.asleep), (0, 0, 0));
    });
}
