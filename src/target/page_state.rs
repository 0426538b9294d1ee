//! What the kernel knows of the pages of a range, without touching them.

use crate::common::address::AddressRange;

/// Where the bytes of a stretch of pages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    /// In memory, in the process's page table.
    Resident,
    /// In swap.
    Swapped,
    /// Nowhere, and the kernel says that they read as zeros: private
    /// anonymous memory never written, the shared page of zeros, holes of a file.
    Zero,
    /// In the file or the shared memory object behind the mapping; this
    /// process has not mapped them.
    File,
    /// Nowhere, and there is no memory either: unmapped, beyond the end of the file, or not to be read.
    Nothing,
}

impl Content {
    /// Whether a reader of a sparse file has something to read there. Zeros are a hole, and so is
    /// what cannot be read: a sparse copy asks for data alone, and an error would end it half-way.
    pub fn is_data(self) -> bool {
        match self {
            Self::Resident | Self::Swapped | Self::File => true,
            Self::Zero | Self::Nothing => false,
        }
    }
}

/// Neighbouring pages with the same kind of content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stretch {
    /// Where they lie.
    pub range: AddressRange,
    /// Where their bytes are.
    pub content: Content,
}

/// Adds a stretch behind the others, joined to the last where it is its neighbour and of its kind.
pub fn push(stretches: &mut Vec<Stretch>, range: AddressRange, content: Content) {
    if range.is_empty() {
        return;
    }
    if let Some(last) = stretches.last_mut()
        && last.content == content
        && let Some(joined) = last.range.joined(range)
    {
        last.range = joined;
        return;
    }
    stretches.push(Stretch { range, content });
}

/// Memory that a range holds, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// In memory.
    pub resident: u64,
    /// In swap.
    pub swapped: u64,
}

impl Held {
    /// Both together.
    pub fn total(self) -> u64 {
        self.resident + self.swapped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::address::Address;

    fn range(start: u64, end: u64) -> AddressRange {
        AddressRange::new(Address::new(start), Address::new(end)).unwrap()
    }

    /// SEMANTICS: what cannot be read is a hole.
    #[test]
    fn data_is_what_can_be_read_and_may_differ_from_zeros() {
        let kinds = [
            (Content::Resident, true),
            (Content::Swapped, true),
            (Content::File, true),
            (Content::Zero, false),
            (Content::Nothing, false),
        ];
        for (content, is_data) in kinds {
            assert_eq!(content.is_data(), is_data, "{content:?}");
        }
    }

    #[test]
    fn neighbours_of_a_kind_are_one_stretch() {
        let mut stretches = Vec::new();
        push(&mut stretches, range(0x1000, 0x2000), Content::Zero);
        push(&mut stretches, range(0x2000, 0x3000), Content::Zero);
        push(&mut stretches, range(0x3000, 0x3000), Content::File);
        push(&mut stretches, range(0x3000, 0x4000), Content::Resident);
        push(&mut stretches, range(0x5000, 0x6000), Content::Resident);
        let kinds: Vec<_> = stretches.iter().map(|s| (s.range, s.content)).collect();
        assert_eq!(
            kinds,
            [
                (range(0x1000, 0x3000), Content::Zero),
                (range(0x3000, 0x4000), Content::Resident),
                (range(0x5000, 0x6000), Content::Resident),
            ]
        );
    }
}
