//! What the windows promise, case by case.
