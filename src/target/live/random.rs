//! The random bytes that the kernel gives each program that it starts (`AT_RANDOM` in getauxval(3)).
//!
//! They tell programs apart that have the same layout: those that are run without randomization of addresses
//! (`setarch -R`, debuggers, `kernel.randomize_va_space`), one after another in one process; and those of 32 bits.
//!
//! They lie where the stack begins. To read them brings that page in, should it be in swap.

use procfs::process::Process;

use super::mem::Mem;
use super::text::read_whole;
use crate::common::address::Address;

/// The type of the entry (`include/uapi/linux/auxvec.h`).
const AT_RANDOM: u64 = 25;

/// Where a program has its random bytes; `None` where the kernel does not say.
pub(super) fn address(directory: &Process) -> Option<Address> {
    let auxv = read_whole(&mut directory.open_relative("auxv").ok()?).ok()?;
    find(&auxv).map(Address::new)
}

/// Eight of the random bytes that lie at `address`.
pub(super) fn value(mem: &Mem, address: Address) -> Option<u64> {
    let mut bytes = [0; 8];
    let read = mem.read(address, &mut bytes).ok()?;
    (read == bytes.len()).then(|| u64::from_ne_bytes(bytes))
}

/// The value of `AT_RANDOM`: entries are pairs of words, whose width is that of the program.
fn find(auxv: &[u8]) -> Option<u64> {
    let (wide, _) = auxv.as_chunks::<8>();
    let wide: Vec<u64> = wide.iter().map(|word| u64::from_ne_bytes(*word)).collect();
    let (narrow, _) = auxv.as_chunks::<4>();
    let narrow: Vec<u64> = narrow
        .iter()
        .map(|word| u32::from_ne_bytes(*word).into())
        .collect();
    let entry = |words: &[u64]| {
        let mut entries = words.chunks_exact(2);
        let value = entries.find(|entry| entry[0] == AT_RANDOM)?[1];
        (value != 0).then_some(value)
    };
    entry(&wide).or_else(|| entry(&narrow))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::ProcessId;
    use crate::target::live::child::Child;

    #[test]
    fn the_entry_is_found_among_words_of_any_width() {
        let words = [33_u64, 0x7fff_0000_1000, 25, 0x7fff_0000_2009, 0, 0];
        let wide: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        assert_eq!(find(&wide), Some(0x7fff_0000_2009));
        let words = [32_u32, 0xf7f0_0000, 25, 0xffff_d00b, 0, 0];
        let narrow: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        assert_eq!(find(&narrow), Some(0xffff_d00b));
        assert_eq!(find(&[]), None);
        assert_eq!(find(&[0; 64]), None);
    }

    #[test]
    fn each_program_has_its_own() {
        let value_of = |pid: u32| {
            let pid = ProcessId::new(pid).unwrap();
            let directory = Process::new(pid.as_pid_t()).unwrap();
            let mem = Mem::open(&directory, pid).unwrap();
            value(&mem, address(&directory)?)
        };
        let own = value_of(std::process::id()).unwrap();
        assert_eq!(value_of(std::process::id()), Some(own));
        let mut command = std::process::Command::new("sleep");
        let other = Child::start(command.arg("600")).unwrap();
        // In the middle of its exec it has none yet.
        let value = loop {
            match value_of(other.id()) {
                Some(value) => break value,
                None => std::thread::yield_now(),
            }
        };
        assert_ne!(value, own);
    }
}
