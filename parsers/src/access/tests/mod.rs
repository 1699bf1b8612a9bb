//! Lines through the front door: every format kind, real traffic, what breaks other parsers, and lines made at random.

mod generated;
mod hostile;
mod lines;
mod straight;
