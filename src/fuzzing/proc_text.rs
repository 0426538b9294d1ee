//! Other texts of `/proc`: `mountinfo`, `stat`, `smaps`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use arbitrary::{Result, Unstructured};
use procfs::FromRead;

use crate::common::address::{Address, AddressRange};
use crate::target::live::parsers::{MountPoint, Smaps, Stat, mountinfo_line};
use crate::target::mapping::Device;

/// What is read of a line is read back as it is where the kernel writes it; so are any fields.
pub(super) fn check_mountinfo(data: &[u8]) {
    for line in data.split(|byte| *byte == b'\n') {
        if let Some(mount) = mountinfo_line(line) {
            let fields = MountFields {
                mount,
                kind: b"x".to_vec(),
                others: Default::default(),
            };
            fields.check();
        }
    }
    if let Ok(fields) = MountFields::arbitrary(&mut Unstructured::new(data)) {
        fields.check();
    }
}

/// What a line of `mountinfo` is written from.
struct MountFields {
    mount: MountPoint,
    kind: Vec<u8>,
    /// Root, options, optional fields, source, options of the super block.
    others: [Vec<u8>; 5],
}

impl MountFields {
    fn arbitrary(from: &mut Unstructured<'_>) -> Result<Self> {
        let kinds: [&[u8]; 4] = [
            b"tmpfs",
            b"fuse.procmemfs",
            b"fuse.procmemfs ",
            b"fuse.\xff",
        ];
        let kind = from.choose(&kinds)?.to_vec();
        let mut path = field(from)?;
        path.insert(0, b'/');
        let mount = MountPoint {
            id: from.arbitrary()?,
            path: OsStr::from_bytes(&path).into(),
            device: Device {
                major: from.arbitrary()?,
                minor: from.arbitrary()?,
            },
            is_ours: kind == b"fuse.procmemfs",
        };
        let mut others = [const { Vec::new() }; 5];
        for other in &mut others {
            *other = field(from)?;
        }
        Ok(Self {
            mount,
            kind,
            others,
        })
    }

    fn check(mut self) {
        self.mount.is_ours = self.kind == b"fuse.procmemfs";
        let line = self.written();
        let read = mountinfo_line(&line);
        assert_eq!(read.as_ref(), Some(&self.mount), "{}", line.escape_ascii());
    }

    /// The line, without its newline: `show_mountinfo` in `fs/proc_namespace.c`.
    fn written(&self) -> Vec<u8> {
        let Self { mount, kind, .. } = self;
        let [root, options, optional, source, super_options] = &self.others;
        let Device { major, minor } = mount.device;
        let path = mount.path.as_os_str().as_bytes();
        let mut line = format!("{} 1 {major}:{minor} ", mount.id).into_bytes();
        line.extend(mangled(root));
        line.push(b' ');
        line.extend(mangled(path));
        line.extend_from_slice(b" rw,");
        line.extend(mangled(options));
        // `shared:1`, `master:1`; there is no other kind of them, and none is `-`.
        for peer in optional {
            line.extend(format!(" shared:{peer}").bytes());
        }
        line.extend_from_slice(b" - ");
        line.extend(mangled(kind));
        line.push(b' ');
        line.extend(mangled(source));
        line.extend_from_slice(b" rw,");
        line.extend(mangled(super_options));
        line
    }
}

/// Bytes that a path or an option may have.
fn field(from: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut bytes: Vec<u8> = from.arbitrary()?;
    bytes.retain(|byte| *byte != 0);
    Ok(bytes)
}

/// With what parts fields written as octal digits (`mangle` in `fs/proc_namespace.c`).
fn mangled(field: &[u8]) -> Vec<u8> {
    let mut mangled = Vec::new();
    for byte in field {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' | b'#' => mangled.extend(format!("\\{byte:03o}").bytes()),
            _ => mangled.push(*byte),
        }
    }
    mangled
}

/// What `procfs` reads is read, and is the same.
pub(super) fn check_stat(text: &[u8]) {
    let ours = Stat::parse(text);
    let Some(theirs) = parsed_by_procfs(text) else {
        return;
    };
    let ours = ours.expect("another parser takes it");
    assert_eq!(ours.parent, u64::from(theirs.ppid.unsigned_abs()));
    assert_eq!(ours.flags, u64::from(theirs.flags));
    assert_eq!(ours.threads, theirs.num_threads.unsigned_abs());
    assert_eq!(ours.start_time, theirs.starttime);
    assert_eq!(ours.size, theirs.vsize);
    assert_eq!(ours.layout, [theirs.startcode, theirs.startstack]);
    let is_gone = matches!(theirs.state, 'Z' | 'X' | 'x');
    assert!(ours.is_dead || !is_gone);
}

/// As the crate `procfs` reads it, which panics on text that no kernel writes; `None` there, and for numbers below
/// zero, which the kernel does not write for these fields.
fn parsed_by_procfs(text: &[u8]) -> Option<procfs::process::Stat> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let command_end = text.iter().rposition(|byte| *byte == b')')?;
    let is_shaped = digits > 0
        && text[digits..].starts_with(b" (")
        && command_end > digits + 1
        && text.get(command_end + 1) == Some(&b' ')
        && text
            .get(command_end + 2)
            .is_some_and(u8::is_ascii_alphabetic)
        && text.get(command_end + 3) == Some(&b' ')
        && !text.windows(2).any(|pair| pair == b"-0")
        && text.is_ascii();
    if !is_shaped {
        return None;
    }
    let stat = procfs::process::Stat::from_read(text).ok()?;
    (stat.ppid >= 0 && stat.num_threads >= 0).then_some(stat)
}

/// No text makes it panic; what the kernel writes of mappings is found again at every address.
pub(super) fn check_smaps(data: &[u8]) {
    let read = |text: &[u8]| {
        let mut smaps = Smaps::default();
        for line in text.split(|byte| *byte == b'\n') {
            smaps.line(line);
        }
        smaps
    };
    let smaps = read(data);
    for address in [0, 0x1000, 1 << 47, u64::MAX].map(Address::new) {
        let found = smaps.at(address);
        assert!(found.is_none_or(|vma| vma.range.contains(address)));
    }
    let Ok(vmas) = Vma::arbitrary(&mut Unstructured::new(data)) else {
        return;
    };
    let text: Vec<u8> = vmas.iter().flat_map(Vma::written).collect();
    let smaps = read(&text);
    let mut end = Address::new(0);
    for vma in &vmas {
        let (first, last) = (vma.range.start(), Address::new(vma.range.end().get() - 1));
        for address in [first, last] {
            let found = smaps.at(address).expect("it was written");
            assert_eq!(found.range, vma.range);
            assert_eq!(found.swapped, vma.swapped_kib * 1024);
            assert_eq!(found.is_device, vma.has(&["io", "pf"]));
            assert_eq!(found.is_lazy, vma.has(&["um", "ui"]));
        }
        if end < first {
            assert_eq!(smaps.at(end), None, "a gap");
        }
        end = vma.range.end();
    }
}

/// What the lines of a mapping in `smaps` are written from.
struct Vma {
    range: AddressRange,
    name: Vec<u8>,
    swapped_kib: u64,
    flags: Vec<&'static str>,
}

impl Vma {
    /// Some mappings, in order and disjoint.
    fn arbitrary(from: &mut Unstructured<'_>) -> Result<Vec<Self>> {
        const FLAGS: [&str; 12] = [
            "rd", "wr", "io", "pf", "um", "ui", "uw", "sd", "ht", "pfx", "i", "dd",
        ];
        let mut vmas = Vec::new();
        let mut at = 0_u64;
        while !from.is_empty() && vmas.len() < 64 {
            let gap = u64::from(from.int_in_range(0_u16..=3)?);
            let pages = u64::from(from.int_in_range(1_u16..=0xffff)?);
            let start = at + gap * 0x1000;
            at = start + pages * 0x1000;
            let mut flags = Vec::new();
            for _ in 0..from.int_in_range(0..=4)? {
                flags.push(*from.choose(&FLAGS)?);
            }
            let mut name: Vec<u8> = from.arbitrary()?;
            name.retain(|byte| *byte != 0 && *byte != b'\n');
            vmas.push(Self {
                range: AddressRange::new(Address::new(start), Address::new(at)).unwrap_or_default(),
                name,
                swapped_kib: u64::from(from.arbitrary::<u32>()?),
                flags,
            });
        }
        Ok(vmas)
    }

    fn has(&self, wanted: &[&str]) -> bool {
        self.flags.iter().any(|flag| wanted.contains(flag))
    }

    /// `show_smap` in `fs/proc/task_mmu.c`.
    fn written(&self) -> Vec<u8> {
        let (start, end) = (self.range.start().get(), self.range.end().get());
        let mut text = format!("{start:08x}-{end:08x} rw-p 00000000 00:00 0    ").into_bytes();
        text.extend_from_slice(&self.name);
        let flags: String = self.flags.iter().map(|flag| format!("{flag} ")).collect();
        text.extend(
            format!(
                "\nSize:           {:8} kB\nRss:                   4 kB\nAnonymous:             0 kB\n\
                 Swap:           {:8} kB\nSwapPss:               9 kB\nLocked:                0 kB\n\
                 THPeligible:    0\nVmFlags: {flags}\n",
                (end - start) / 1024,
                self.swapped_kib,
            )
            .bytes(),
        );
        text
    }
}
