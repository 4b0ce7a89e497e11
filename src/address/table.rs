//! Blocks of addresses with a meaning of their own; of two that match, the first counts.

use std::ops::Shr;

use super::Class;

/// A block of addresses of one class, as integers.
pub(super) struct Block<T> {
    base: T,
    shift: u32,
    class: Class,
}

/// Returns the class of the first block that holds `bits`.
pub(super) fn find<T>(blocks: &[Block<T>], bits: T) -> Option<Class>
where
    T: Copy + Eq + Shr<u32, Output = T>,
{
    let found = blocks.iter().find(|it| bits >> it.shift == it.base >> it.shift)?;
    Some(found.class)
}

#[rustfmt::skip]
pub(super) const V4: &[Block<u32>] = &[
    // IANA IPv4 Special-Purpose Address Registry.
    v4([0, 0, 0, 0], 32, Class::Unspecified),
    v4([0, 0, 0, 0], 8, Class::Reserved),
    v4([10, 0, 0, 0], 8, Class::Private),
    v4([100, 64, 0, 0], 10, Class::Cgnat),
    v4([127, 0, 0, 0], 8, Class::Loopback),
    v4([169, 254, 0, 0], 16, Class::LinkLocal),
    v4([172, 16, 0, 0], 12, Class::Private),
    v4([192, 0, 0, 0], 24, Class::Reserved),
    v4([192, 0, 2, 0], 24, Class::Documentation),
    v4([192, 31, 196, 0], 24, Class::Anycast),
    v4([192, 52, 193, 0], 24, Class::Anycast),
    v4([192, 88, 99, 0], 24, Class::Reserved),
    v4([192, 168, 0, 0], 16, Class::Private),
    v4([192, 175, 48, 0], 24, Class::Anycast),
    v4([198, 18, 0, 0], 15, Class::Benchmark),
    v4([198, 51, 100, 0], 24, Class::Documentation),
    v4([203, 0, 113, 0], 24, Class::Documentation),
    v4([224, 0, 0, 0], 4, Class::Multicast),
    v4([255, 255, 255, 255], 32, Class::Broadcast),
    v4([240, 0, 0, 0], 4, Class::Reserved),
    // Public resolvers.
    v4([1, 0, 0, 0], 24, Class::Anycast),
    v4([1, 1, 1, 0], 24, Class::Anycast),
    v4([4, 2, 2, 0], 24, Class::Anycast),
    v4([8, 8, 4, 0], 24, Class::Anycast),
    v4([8, 8, 8, 0], 24, Class::Anycast),
    v4([9, 9, 9, 0], 24, Class::Anycast),
    v4([45, 90, 28, 0], 24, Class::Anycast),
    v4([45, 90, 30, 0], 24, Class::Anycast),
    v4([64, 6, 64, 0], 24, Class::Anycast),
    v4([64, 6, 65, 0], 24, Class::Anycast),
    v4([76, 76, 2, 0], 24, Class::Anycast),
    v4([76, 76, 10, 0], 24, Class::Anycast),
    v4([77, 88, 8, 0], 24, Class::Anycast),
    v4([94, 140, 14, 0], 24, Class::Anycast),
    v4([94, 140, 15, 0], 24, Class::Anycast),
    v4([149, 112, 112, 0], 24, Class::Anycast),
    v4([156, 154, 70, 0], 24, Class::Anycast),
    v4([156, 154, 71, 0], 24, Class::Anycast),
    v4([185, 228, 168, 0], 24, Class::Anycast),
    v4([185, 228, 169, 0], 24, Class::Anycast),
    v4([208, 67, 220, 0], 24, Class::Anycast),
    v4([208, 67, 222, 0], 24, Class::Anycast),
    // Front ends of Cloudflare; its users' exits (104.28/16) are not among them.
    v4([104, 16, 0, 0], 13, Class::Anycast),
    v4([104, 24, 0, 0], 14, Class::Anycast),
    v4([172, 64, 0, 0], 13, Class::Anycast),
    // The larger blocks of AS14593 (Starlink).
    v4([14, 1, 64, 0], 19, Class::Satellite),
    v4([65, 181, 0, 0], 19, Class::Satellite),
    v4([74, 244, 0, 0], 16, Class::Satellite),
    v4([98, 97, 0, 0], 16, Class::Satellite),
    v4([129, 222, 0, 0], 16, Class::Satellite),
    v4([135, 129, 0, 0], 18, Class::Satellite),
    v4([143, 105, 0, 0], 16, Class::Satellite),
    v4([145, 224, 64, 0], 18, Class::Satellite),
    v4([148, 227, 64, 0], 18, Class::Satellite),
    v4([150, 228, 0, 0], 16, Class::Satellite),
    v4([153, 66, 0, 0], 15, Class::Satellite),
    v4([179, 64, 0, 0], 18, Class::Satellite),
    v4([179, 65, 0, 0], 17, Class::Satellite),
];

#[rustfmt::skip]
pub(super) const V6: &[Block<u128>] = &[
    // IANA IPv6 Special-Purpose Address Registry.
    v6([0, 0, 0], 128, Class::Unspecified),
    Block { base: 1, shift: 0, class: Class::Loopback },
    v6([0x100, 0, 0], 64, Class::Discard),
    v6([0x2001, 0, 0], 32, Class::Teredo),
    v6([0x2001, 0x2, 0], 48, Class::Benchmark),
    v6([0x2001, 0x4, 0x112], 48, Class::Anycast),
    v6([0x2001, 0, 0], 23, Class::Reserved),
    v6([0x2001, 0xdb8, 0], 32, Class::Documentation),
    v6([0x2620, 0x4f, 0x8000], 48, Class::Anycast),
    v6([0x3fff, 0, 0], 20, Class::Documentation),
    v6([0xfc00, 0, 0], 7, Class::Ula),
    v6([0xfe80, 0, 0], 10, Class::LinkLocal),
    v6([0xfec0, 0, 0], 10, Class::Private),
    v6([0xff00, 0, 0], 8, Class::Multicast),
    // Public resolvers.
    v6([0x2001, 0x4860, 0x4860], 48, Class::Anycast),
    v6([0x2606, 0x4700, 0x4700], 48, Class::Anycast),
    v6([0x2620, 0, 0xccc], 48, Class::Anycast),
    v6([0x2620, 0, 0xccd], 48, Class::Anycast),
    v6([0x2620, 0x119, 0x35], 48, Class::Anycast),
    v6([0x2620, 0x119, 0x53], 48, Class::Anycast),
    v6([0x2620, 0xfe, 0], 48, Class::Anycast),
    v6([0x2a10, 0x50c0, 0], 32, Class::Anycast),
    // The larger blocks of AS14593 (Starlink).
    v6([0x2406, 0x2d40, 0], 32, Class::Satellite),
    v6([0x2605, 0x59c0, 0], 28, Class::Satellite),
    v6([0x2803, 0x9810, 0], 32, Class::Satellite),
    v6([0x2a0d, 0x3340, 0], 29, Class::Satellite),
];

const fn v4(octets: [u8; 4], prefix: u32, class: Class) -> Block<u32> {
    Block { base: u32::from_be_bytes(octets), shift: 32 - prefix, class }
}

/// All blocks but the two of single addresses end within their first three groups.
const fn v6(groups: [u16; 3], prefix: u32, class: Class) -> Block<u128> {
    let [a, b, c] = groups;
    let base = (a as u128) << 112 | (b as u128) << 96 | (c as u128) << 80;
    Block { base, shift: 128 - prefix, class }
}
