//! Requests over time in bounded memory: the busiest second, and a series that grows coarser as the span grows.
//!
//! Lines may come in any order: logs of several hosts, rotated files, and servers that write when a request ends.
//! A second is counted whole as long as no more than [`PAGES_MAX`] minutes-and-a-bit are in use; beyond that the
//! least recently used are given up, and the peak says that it is no longer exact.

use std::collections::BTreeMap;
use std::ops::Range;

use hashbrown::HashTable;

/// Seconds counted together.
const PAGE_SECONDS: usize = 64;

/// Pages that are kept: 48 days if every second has a request, in 17 MiB.
const PAGES_MAX: usize = 65_536;

/// Points of the series that are kept.
const POINTS_MAX: usize = 2_048;

/// An odd number without a pattern in its bits: 2^64 divided by the golden ratio. It spreads numbers that follow one another.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Widths of a point in seconds, each a multiple of the one before; what follows is doubled.
const WIDTHS_S: [i64; 14] =
    [1, 5, 10, 30, 60, 300, 600, 1_800, 3_600, 10_800, 21_600, 43_200, 86_400, 604_800];

/// The most requests of any one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Peak {
    /// Requests in that second.
    pub(super) requests: u64,
    /// The second, since 1970.
    pub(super) second: i64,
}

/// Where each number has its place in a list.
#[derive(Default)]
struct Places(HashTable<(i64, u32)>);

impl Places {
    fn hash(number: i64) -> u64 {
        (number as u64).wrapping_mul(SPREAD)
    }

    fn get(&self, number: i64) -> Option<usize> {
        self.0.find(Places::hash(number), |held| held.0 == number).map(|(_, place)| *place as usize)
    }

    /// For a number that has none.
    fn insert(&mut self, number: i64, place: usize) {
        self.0.insert_unique(Places::hash(number), (number, place as u32), |held| Places::hash(held.0));
    }
}

struct Page {
    number: i64,
    /// The clock when a line last fell into it; the clock moves when the page changes.
    used: u64,
    seconds: [u32; PAGE_SECONDS],
}

/// Requests of every second.
pub(super) struct Seconds {
    pages_max: usize,
    pages: Vec<Page>,
    places: Places,
    current: usize,
    clock: u64,
    peak: Peak,
    is_exact: bool,
}

impl Seconds {
    /// Nothing counted.
    pub(super) fn new() -> Seconds {
        Seconds::with_pages(PAGES_MAX)
    }

    fn with_pages(pages_max: usize) -> Seconds {
        Seconds {
            pages_max,
            pages: Vec::new(),
            places: Places::default(),
            current: 0,
            clock: 0,
            peak: Peak::default(),
            is_exact: true,
        }
    }

    /// Counts a request in a second since 1970.
    #[inline]
    pub(super) fn add(&mut self, second: i64) {
        let number = second.div_euclid(PAGE_SECONDS as i64);
        if self.pages.get(self.current).is_none_or(|page| page.number != number) {
            self.turn_to(number);
        }
        let count = &mut self.pages[self.current].seconds[second.rem_euclid(PAGE_SECONDS as i64) as usize];
        *count = count.saturating_add(1);
        let requests = u64::from(*count);
        // Of equal seconds the first counts, whatever the order of the lines.
        if requests > self.peak.requests || (requests == self.peak.requests && second < self.peak.second) {
            self.peak = Peak { requests, second };
        }
    }

    fn turn_to(&mut self, number: i64) {
        self.clock += 1;
        if let Some(known) = self.places.get(number) {
            self.current = known;
            self.pages[self.current].used = self.clock;
            return;
        }
        if self.pages.len() >= self.pages_max {
            self.give_up_half();
        }
        self.current = self.pages.len();
        self.places.insert(number, self.current);
        self.pages.push(Page { number, used: self.clock, seconds: [0; PAGE_SECONDS] });
    }

    /// Forgets the half of the pages that was not used for longest; their busiest second is in the peak already.
    fn give_up_half(&mut self) {
        self.is_exact = false;
        self.pages.sort_unstable_by_key(|page| std::cmp::Reverse(page.used));
        self.pages.truncate(self.pages_max / 2);
        self.places = Places::default();
        self.pages.iter().enumerate().for_each(|(place, page)| self.places.insert(page.number, place));
    }

    /// The busiest second; where it is not exact, at least so busy.
    pub(super) fn peak(&self) -> Peak {
        self.peak
    }

    /// Whether every second was counted whole.
    pub(super) fn is_exact(&self) -> bool {
        self.is_exact
    }
}

/// What happened within one width of the series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) requests: u64,
    pub(super) errors: u64,
}

/// Requests and errors by time. Points without requests take no place, so that one wrong date does not blur the rest.
pub(super) struct Series {
    points_max: usize,
    width_s: i64,
    /// Each with its number: the second that it begins at, in widths.
    points: Vec<(i64, Point)>,
    places: Places,
    /// The point that is counted in, since line after line falls into one; its first second, and the one behind its last.
    current: usize,
    open: Range<i64>,
}

impl Series {
    /// Nothing counted, a second a point.
    pub(super) fn new() -> Series {
        Series::with_points(POINTS_MAX)
    }

    fn with_points(points_max: usize) -> Series {
        let (points, places) = (Vec::new(), Places::default());
        Series { points_max, width_s: WIDTHS_S[0], points, places, current: 0, open: 0..0 }
    }

    /// Counts a request in a second since 1970, not before: no width would put both sides of it together.
    #[inline]
    pub(super) fn add(&mut self, second: i64, error: bool) {
        debug_assert!(second >= 0, "{second}");
        if !self.open.contains(&second) {
            self.turn_to(second);
        }
        let (_, point) = &mut self.points[self.current];
        point.requests += 1;
        point.errors += u64::from(error);
    }

    /// Opens the point of a second.
    fn turn_to(&mut self, second: i64) {
        self.current = self.place_of(second.div_euclid(self.width_s));
        if self.points.len() > self.points_max {
            self.widen();
            self.current = self.place_of(second.div_euclid(self.width_s));
        }
        let start_s = second.div_euclid(self.width_s) * self.width_s;
        self.open = start_s..start_s + self.width_s;
    }

    fn place_of(&mut self, number: i64) -> usize {
        self.places.get(number).unwrap_or_else(|| {
            let place = self.points.len();
            self.points.push((number, Point::default()));
            self.places.insert(number, place);
            place
        })
    }

    /// Makes the points so wide that they fit.
    #[cold]
    fn widen(&mut self) {
        while self.points.len() > self.points_max {
            let coarser = wider(self.width_s);
            let factor = coarser / self.width_s;
            self.places = Places::default();
            for (number, point) in std::mem::take(&mut self.points) {
                let place = self.place_of(number.div_euclid(factor));
                let (_, merged) = &mut self.points[place];
                merged.requests += point.requests;
                merged.errors += point.errors;
            }
            self.width_s = coarser;
        }
    }

    /// Seconds of a point.
    pub(super) fn width_s(&self) -> i64 {
        self.width_s
    }

    /// The points by the second they begin at.
    pub(super) fn points(&self) -> BTreeMap<i64, Point> {
        self.points.iter().map(|(number, point)| (number * self.width_s, *point)).collect()
    }
}

fn wider(width_s: i64) -> i64 {
    WIDTHS_S.into_iter().find(|wider| *wider > width_s).unwrap_or(width_s * 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_width_divides_the_next() {
        assert!(WIDTHS_S.windows(2).all(|pair| pair[1] % pair[0] == 0));
        assert_eq!((wider(1), wider(86_400), wider(604_800)), (5, 604_800, 1_209_600));
    }

    #[test]
    fn a_day_of_seconds_becomes_a_minute_a_point() {
        let mut series = Series::new();
        (0..86_400).for_each(|second| series.add(second, second < 60));
        assert_eq!(series.width_s(), 60);
        let points = series.points();
        assert_eq!(points.len(), 1_440);
        assert_eq!(points[&0], Point { requests: 60, errors: 60 });
        assert_eq!(points[&60], Point { requests: 60, errors: 0 });
    }

    #[test]
    fn one_wrong_date_does_not_blur_the_rest() {
        let mut series = Series::new();
        series.add(0, false);
        (1_764_000_000..1_764_000_100).for_each(|second| series.add(second, false));
        assert_eq!((series.width_s(), series.points().len()), (1, 101));
    }

    #[test]
    fn more_seconds_than_pages_make_the_peak_a_lower_bound() {
        let mut seconds = Seconds::with_pages(4);
        for second in [10, 10, 10, 1_000, 2_000, 3_000] {
            seconds.add(second);
        }
        assert!(seconds.is_exact());
        seconds.add(4_000);
        assert!(!seconds.is_exact());
        assert_eq!(seconds.peak(), Peak { requests: 3, second: 10 });
        (0..1_000).for_each(|second| seconds.add(second * 100));
        assert!(seconds.pages.len() <= 4 && seconds.places.0.len() == seconds.pages.len());
    }

    proptest! {
        #[test]
        fn any_order_gives_the_same_numbers(
            requests in prop::collection::vec((0i64..600, any::<bool>()), 1..300), points_max in 1usize..40
        ) {
            let (mut seconds, mut series) = (Seconds::new(), Series::with_points(points_max));
            let mut truth: BTreeMap<i64, u64> = BTreeMap::new();
            for (second, error) in &requests {
                seconds.add(*second);
                series.add(*second, *error);
                *truth.entry(*second).or_default() += 1;
            }
            let busiest = truth.iter().max_by_key(|(second, count)| (**count, std::cmp::Reverse(**second)));
            let (second, count) = busiest.expect("there is a request");
            prop_assert_eq!(seconds.peak(), Peak { requests: *count, second: *second });
            let points = series.points();
            prop_assert!(points.len() <= points_max);
            prop_assert_eq!(points.values().map(|point| point.requests).sum::<u64>(), requests.len() as u64);
            let errors = requests.iter().filter(|(_, error)| *error).count() as u64;
            prop_assert_eq!(points.values().map(|point| point.errors).sum::<u64>(), errors);
            for (start, point) in points {
                let within = truth.range(start..start + series.width_s()).map(|(_, count)| count).sum::<u64>();
                prop_assert_eq!(point.requests, within);
            }
        }
    }
}
