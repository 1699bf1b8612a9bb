//! Asks the pipeline for a count of the lines, and waits for it.
//!
//! A comparison with a server's counters needs a count that is surely later than one reading of them and surely earlier
//! than the next. So a probe asks for a count, and takes only one that was begun after it asked.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use crate::facts::Counted;

/// Between the probe that compares and the pipeline that counts.
pub struct Tally {
    /// Number of the latest question.
    asked: AtomicU64,
    /// The latest answer, with the number of the question that it follows.
    answered: watch::Sender<(u64, Counted)>,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Tally {
    /// `wake` is called when the pipeline should look at its files now.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Tally {
        let (answered, _) = watch::channel((0, Counted::default()));
        Tally { asked: AtomicU64::new(0), answered, wake: Box::new(wake) }
    }

    /// The count of all lines that stood in the logs when this was called, and maybe of some that came later. Waits for as
    /// long as the pipeline is behind.
    pub(super) async fn count(&self) -> Counted {
        let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut answers = self.answered.subscribe();
        (self.wake)();
        match answers.wait_for(|(of, _)| *of >= number).await {
            Ok(answer) => answer.1,
            Err(_) => unreachable!("the sender lives as long as self"),
        }
    }

    /// The question that waits for an answer; to be read before the files are. `None` where none waits.
    pub fn waiting(&self) -> Option<u64> {
        let asked = self.asked.load(Ordering::SeqCst);
        (asked > self.answered.borrow().0).then_some(asked)
    }

    /// Answers a question with a count that was begun after [`Tally::waiting`] gave it, and that reached the end of all files.
    pub fn answer(&self, question: u64, counted: Counted) {
        self.answered.send_replace((question, counted));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn only_a_count_begun_after_the_question_answers_it() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let tally = Arc::new(Tally::new(|| {}));
            assert_eq!(tally.waiting(), None);
            let count = |lines| Counted { lines, ..Counted::default() };
            let asked = Arc::clone(&tally);
            let first = tokio::spawn(async move { asked.count().await.lines });
            tokio::task::yield_now().await;
            let question = tally.waiting().expect("one waits");
            let asked = Arc::clone(&tally);
            let second = tokio::spawn(async move { asked.count().await.lines });
            tokio::task::yield_now().await;
            tally.answer(question, count(7));
            assert_eq!(first.await.expect("it ends"), 7);
            assert!(!second.is_finished());
            tally.answer(tally.waiting().expect("the second waits"), count(8));
            assert_eq!(second.await.expect("it ends"), 8);
            assert_eq!(tally.waiting(), None);
        });
    }
}
