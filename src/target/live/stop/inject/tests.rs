use super::*;

#[test]
fn the_code_lies_in_the_padding_of_the_vdso() {
    let mut page = [0; PAGE_SIZE as usize];
    page[..2001].fill(1);
    let first = free_offset(&page).unwrap();
    assert_eq!((first % 8, first >= 2001 + GAP), (0, true));
    // What is left of an earlier attempt is passed over.
    page[first] = 0x0f;
    page[first + stub::LEN - 1] = 1;
    let second = free_offset(&page).unwrap();
    assert!(second >= first + stub::LEN + GAP);
    page[4095 - stub::LEN] = 1;
    assert_eq!(free_offset(&page), None);
    // A page that holds nothing is none of a vDSO.
    assert_eq!(free_offset(&[0; PAGE_SIZE as usize]), None);
}
