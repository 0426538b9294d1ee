//! In which order mappings are shown.

use std::cmp::Reverse;

use clap::ValueEnum;
use procmemfs::picture::{MappingPicture, Picture, Place};

/// What comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Order {
    /// What takes most memory and swap
    #[default]
    Held,
    /// The longest
    Size,
    /// Most in memory
    Resident,
    /// Most in swap
    Swapped,
    /// Most zeros that take no memory
    Zero,
    /// Most in files, not in the process's memory
    Absent,
    /// The lowest address
    Address,
    /// By path
    Name,
}

impl Order {
    /// The one after it, and after the last the first.
    pub(super) fn next(self) -> Self {
        let all = Self::value_variants();
        let at = all.iter().position(|order| *order == self).unwrap_or(0);
        all[(at + 1) % all.len()]
    }

    /// What it is called, as `--sort` has it.
    pub(super) fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// The mappings in this order; of two that are equal the longer one is first, and then the one with the lower address.
    pub(super) fn sorted(self, picture: &Picture) -> Vec<&MappingPicture> {
        let mut sorted: Vec<_> = picture.mappings.iter().collect();
        let most = |mapping: &MappingPicture| match self {
            Self::Held => mapping.amounts.held(),
            Self::Resident => mapping.amounts.at(Place::Resident),
            Self::Swapped => mapping.amounts.at(Place::Swapped),
            Self::Zero => mapping.amounts.at(Place::Zero),
            Self::Absent => mapping.amounts.at(Place::Absent),
            Self::Size | Self::Address | Self::Name => mapping.amounts.size(),
        };
        match self {
            Self::Address => sorted.sort_by_key(|mapping| mapping.range.start()),
            Self::Name => sorted.sort_by_key(|mapping| (&mapping.path, mapping.range.start())),
            _ => sorted.sort_by_key(|mapping| {
                let size = mapping.amounts.size();
                (Reverse((most(mapping), size)), mapping.range.start())
            }),
        }
        sorted
    }
}
