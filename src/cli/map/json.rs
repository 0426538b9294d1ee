//! A picture, and what differs, for programs.

use procmemfs::backup::Backup;
use procmemfs::picture::{Amounts, Difference, MappingPicture, PageCounts, Picture, Place};
use serde_json::{Map, Value, json};

use super::order::Order;

/// All mappings, in this order.
pub(super) fn picture(picture: &Picture, order: Order) -> Value {
    let mappings = order.sorted(picture).into_iter().map(mapping);
    json!({
        "pid": picture.pid,
        "command": picture.command,
        "program": picture.program,
        "unit": "bytes",
        "totals": amounts(picture.totals()),
        "mappings": mappings.collect::<Vec<Value>>(),
    })
}

fn amounts(amounts: Amounts) -> Map<String, Value> {
    let places = Place::ALL.into_iter();
    let places = places.map(|place| (place.name().to_owned(), json!(amounts.at(place))));
    let size = ("size".to_owned(), json!(amounts.size()));
    std::iter::once(size).chain(places).collect()
}

fn mapping(mapping: &MappingPicture) -> Value {
    let mut value = amounts(mapping.amounts);
    let facts = [
        ("name", mapping.name.clone()),
        ("start", mapping.range.start().to_string()),
        ("end", mapping.range.end().to_string()),
        ("protection", mapping.protection.to_string()),
        ("path", mapping.path.clone()),
    ];
    value.extend(facts.map(|(name, fact)| (name.to_owned(), Value::String(fact))));
    Value::Object(value)
}

/// All mappings of both copies, lowest address first.
pub(super) fn difference(old: &Backup, new: &Backup, difference: &Difference) -> Value {
    let copy = |backup: &Backup| {
        let record = backup.record();
        json!({ "pid": record.pid, "command": record.command })
    };
    let mappings = difference.mappings.iter().map(|mapping| {
        let mut value = pages(mapping.pages);
        value.insert("name".to_owned(), json!(mapping.name));
        Value::Object(value)
    });
    json!({
        "old": copy(old),
        "new": copy(new),
        "unit": "pages of 4096 bytes",
        "totals": pages(difference.totals()),
        "mappings": mappings.collect::<Vec<Value>>(),
    })
}

fn pages(pages: PageCounts) -> Map<String, Value> {
    let counts = [
        ("same", pages.same),
        ("changed", pages.changed),
        ("came", pages.came),
        ("went", pages.went),
        ("unknown", pages.unknown),
    ];
    let counts = counts.map(|(name, count)| (name.to_owned(), json!(count)));
    counts.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::example;
    use super::*;

    #[test]
    fn programs_get_all_numbers_in_bytes() {
        let value = picture(&example(8), Order::Address);
        assert_eq!(value["pid"], 7);
        assert_eq!(value["totals"]["resident"], 12288);
        let heap = &value["mappings"][0];
        assert_eq!(heap["start"], "000000010000");
        assert_eq!(heap["protection"], "rw-p");
        let numbers = [
            "size",
            "resident",
            "swapped",
            "zero",
            "absent",
            "unreadable",
        ];
        let found = numbers.map(|name| heap[name].as_u64().unwrap());
        assert_eq!(found, [16384, 4096, 4096, 8192, 0, 0]);
    }
}
