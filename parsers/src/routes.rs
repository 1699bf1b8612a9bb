//! Routes of targets that come again and again, remembered.
//!
//! Reason: a route is made by looking at every byte of a path under several rules, and a server's requests repeat: of real
//! traffic nine lines in ten ask for one of two thousand paths. Looking a path up took a tenth of the time of making its route.
//!
//! What it owns: the memory, of constant size. What it must never do: answer anything else than [`route::route`] would, or let a
//! flood of paths that never come again displace the ones that do.

use crate::bytes::{find_either, part, rest, stands_at};
use crate::route;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

/// Places for paths. Full of ordinary paths they take 300 KiB.
const PLACES: usize = 512;
/// Paths that a place takes, and places that a path may stand in. Of 1,400 paths, two thirds of all that fit, one or two in a
/// hundred displace another; with two paths a place and one place a path it was one in four.
const PATHS_PER_PLACE: usize = 4;
const PLACES_PER_PATH: usize = 2;
/// Bytes of method and path together up to which they are remembered.
const KEY_BYTES_MAX: usize = 256;
/// An odd number without a pattern in its bits: 2^64 divided by the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// A remembered route: method, path and route stand one behind the other in `text`.
#[derive(Debug, Default)]
struct Slot {
    text: Vec<u8>,
    method_bytes: u16,
    key_bytes: u16,
    /// It was asked for again since other paths last wanted the place.
    is_asked: bool,
    note: u16,
}

/// Remembered routes that may stand for each other.
#[derive(Debug, Default)]
struct Place {
    /// Of method and path of each slot; another one is not looked at any closer.
    hashes: [u64; PATHS_PER_PLACE],
    slots: [Slot; PATHS_PER_PLACE],
}

/// Remembers routes, and with each a number of whoever asks: where he keeps what he counts by it.
#[derive(Debug)]
pub struct Routes {
    places: Box<[Place]>,
    /// The route of a request that is not remembered.
    passing: Slot,
    scratch: String,
}

/// A route, and the number kept with it: zero for one that is new or passing.
#[derive(Debug, PartialEq, Eq)]
pub struct Known<'a> {
    /// The route, as [`route::route`] writes it.
    pub route: &'a [u8],
    /// Kept until the route is displaced.
    pub note: &'a mut u16,
}

impl Default for Routes {
    fn default() -> Routes {
        Routes::new()
    }
}

impl Routes {
    /// Nothing remembered.
    pub fn new() -> Routes {
        let places = core::iter::repeat_with(Default::default).take(PLACES).collect();
        Routes { places, passing: Slot::default(), scratch: String::new() }
    }

    /// The route of a request.
    pub fn of(&mut self, method: Option<&[u8]>, target: Option<&[u8]>) -> Known<'_> {
        let key = method.zip(target).and_then(|(method, target)| Key::new(method, target));
        let slot = match key.and_then(|key| found(&mut self.places, key)) {
            Some(Found::Held(slot)) => slot,
            Some(Found::Free(slot)) => {
                slot.fill(key, method, target, &mut self.scratch);
                slot
            }
            None => {
                self.passing.fill(None, method, target, &mut self.scratch);
                &mut self.passing
            }
        };
        Known { route: rest(&slot.text, usize::from(slot.key_bytes)), note: &mut slot.note }
    }
}

/// What there is for a key.
enum Found<'a> {
    /// The key itself.
    Held(&'a mut Slot),
    /// A path that nobody asked for lately, to give way.
    Free(&'a mut Slot),
}

/// Nothing where all paths of its places are asked for: then the next that comes may have the room of one.
fn found<'a>(places: &'a mut [Place], key: Key<'_>) -> Option<Found<'a>> {
    let which = key.places();
    let held = |place: &Place| {
        let mut both = place.hashes.iter().zip(&place.slots);
        both.position(|(hash, slot)| *hash == key.hash && slot.holds(key))
    };
    if let Some((place, at)) = first(places, which, held) {
        let slot = places.get_mut(place)?.slots.get_mut(at)?;
        slot.is_asked = true;
        return Some(Found::Held(slot));
    }
    let empty = |place: &Place| place.slots.iter().position(|slot| slot.text.is_empty());
    let idle = |place: &Place| place.slots.iter().position(|slot| !slot.is_asked);
    if let Some((place, at)) = first(places, which, empty).or_else(|| first(places, which, idle)) {
        let place = places.get_mut(place)?;
        *place.hashes.get_mut(at)? = key.hash;
        return place.slots.get_mut(at).map(Found::Free);
    }
    for place in which {
        places.get_mut(place)?.slots.iter_mut().for_each(|slot| slot.is_asked = false);
    }
    None
}

/// The first slot that is wanted of some places, with its place.
#[inline]
fn first(
    places: &[Place],
    which: [usize; PLACES_PER_PATH],
    wanted: impl Fn(&Place) -> Option<usize>,
) -> Option<(usize, usize)> {
    which.into_iter().find_map(|place| Some((place, wanted(places.get(place)?)?)))
}

/// What a route depends on: the method, and the target up to its query.
#[derive(Clone, Copy)]
struct Key<'a> {
    method: &'a [u8],
    path: &'a [u8],
    hash: u64,
}

impl<'a> Key<'a> {
    fn new(method: &'a [u8], target: &'a [u8]) -> Option<Key<'a>> {
        let end = find_either(target, b'?', b'#').unwrap_or(target.len());
        let fits = end > 0 && method.len() + end <= KEY_BYTES_MAX;
        let path = part(target, 0, end);
        fits.then(|| Key { method, path, hash: hash_of(method, path) })
    }

    /// Where it may be remembered. Whoever chooses paths that meet there displaces one another's.
    #[inline]
    fn places(self) -> [usize; PLACES_PER_PATH] {
        [self.hash >> 32, self.hash >> 48].map(|bits| bits as usize % PLACES)
    }
}

fn hash_of(method: &[u8], path: &[u8]) -> u64 {
    let mix =
        |hash: u64, word: &[u8; 8]| (hash.rotate_left(5) ^ u64::from_le_bytes(*word)).wrapping_mul(SPREAD);
    let seed = path.len() as u64 ^ (method.len() as u64) << 32;
    match path.last_chunk::<8>() {
        // The last eight bytes may have been mixed in before in part: every byte is, which is all that matters.
        Some(last) => path.as_chunks::<8>().0.iter().fold(mix(seed, last), mix),
        None => path.iter().fold(seed, |hash, byte| mix(hash, &[*byte; 8])),
    }
}

impl Slot {
    fn holds(&self, key: Key<'_>) -> bool {
        let (method, whole) = (usize::from(self.method_bytes), usize::from(self.key_bytes));
        method == key.method.len()
            && stands_at(&self.text, 0, key.method)
            && part(&self.text, method, whole) == key.path
    }

    /// Takes up a route, under `key` where it is to be remembered.
    fn fill(
        &mut self,
        key: Option<Key<'_>>,
        method: Option<&[u8]>,
        target: Option<&[u8]>,
        scratch: &mut String,
    ) {
        scratch.clear();
        route::route(method, target, scratch);
        self.text.clear();
        if let Some(key) = key {
            self.text.extend_from_slice(key.method);
            self.text.extend_from_slice(key.path);
        }
        // KEY_BYTES_MAX fits.
        self.method_bytes = key.map_or(0, |key| key.method.len() as u16);
        self.key_bytes = self.text.len() as u16;
        self.text.extend_from_slice(scratch.as_bytes());
        self.note = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    type Parts = (Option<Vec<u8>>, Option<Vec<u8>>);

    fn plainly((method, target): &Parts) -> Vec<u8> {
        let mut out = String::new();
        route::route(method.as_deref(), target.as_deref(), &mut out);
        out.into_bytes()
    }

    fn request(target: &str) -> (Option<&[u8]>, Option<&[u8]>) {
        (Some(b"GET"), Some(target.as_bytes()))
    }

    #[test]
    fn a_note_stays_with_its_route_whatever_the_query() {
        let mut routes = Routes::new();
        let (method, target) = request("/users/17?a=b");
        let known = routes.of(method, target);
        assert_eq!((known.route, *known.note), (&b"GET /users/{id}"[..], 0));
        *known.note = 7;
        let (method, target) = request("/users/17");
        assert_eq!(*routes.of(method, target).note, 7);
        let (method, target) = request("/users/18");
        assert_eq!(*routes.of(method, target).note, 0, "another path, if of the same route");
        assert_eq!(*routes.of(Some(b"PUT"), target).note, 0);
    }

    #[test]
    fn a_flood_of_paths_leaves_what_is_asked_for_in_its_place() {
        let mut routes = Routes::new();
        for number in 0..20 * PLACES {
            let (method, target) = request("/busy");
            let known = routes.of(method, target);
            assert!(number == 0 || *known.note == 1, "displaced by path {number}");
            *known.note = 1;
            let once = std::format!("/once/{number}");
            let (method, target) = request(&once);
            routes.of(method, target);
        }
    }

    #[test]
    fn paths_hardly_displace_one_another_while_there_is_room() {
        const PATHS: usize = PLACES * PATHS_PER_PLACE * 2 / 3;
        let mut routes = Routes::new();
        let mut forgotten = 0;
        for turn in 0..4 {
            forgotten = 0;
            for number in 0..PATHS {
                let path = std::format!("/articles/{number}/of/{}", number * 7919);
                let (method, target) = request(&path);
                let known = routes.of(method, target);
                forgotten += usize::from(turn > 0 && *known.note == 0);
                *known.note = 1;
            }
        }
        assert!(forgotten <= PATHS / 50, "{forgotten} of {PATHS}");
    }

    proptest! {
        #[test]
        fn every_answer_is_the_plain_one(
            requests in prop::collection::vec(
                (
                    prop::option::weighted(0.95, prop_oneof![Just(b"GET".to_vec()), "[A-Z]{0,4}".prop_map(String::into_bytes)]),
                    prop::option::weighted(
                        0.95,
                        prop_oneof![
                            "/[ab1]{0,2}(/[0-9a-f]{8})?([?#][ab]{0,2})?".prop_map(String::into_bytes),
                            prop::collection::vec(any::<u8>(), 0..300),
                        ],
                    ),
                ),
                1..200,
            ),
        ) {
            let mut routes = Routes::new();
            for parts in requests {
                let (method, target) = &parts;
                prop_assert_eq!(routes.of(method.as_deref(), target.as_deref()).route, plainly(&parts));
            }
        }
    }
}
