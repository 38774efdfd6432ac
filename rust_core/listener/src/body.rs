//! The body of an answer: one message, or one whenever the health changes.

use crate::{
    grpc,
    health::{self, Watching},
};
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

/// What follows the headers of an answer.
pub(crate) enum Reply {
    /// Nothing: the headers said all.
    Empty,
    /// A message, and that the call ended well.
    Once(Option<Bytes>),
    /// Trailers are all that is left.
    End,
    /// A message at once, and one for each change.
    Watching(Box<Watching>),
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Once(message) => {
                let message = message.take();
                *self = Self::End;
                Poll::Ready(message.map(|message| Ok(Frame::data(message))))
            }
            Self::End => {
                *self = Self::Empty;
                Poll::Ready(Some(Ok(Frame::trailers(grpc::good()))))
            }
            Self::Watching(watching) => watching.poll(context).map(|message| {
                let frame = message.map_or_else(
                    || {
                        *self = Self::Empty;
                        let mut trailers = HeaderMap::with_capacity(2);
                        health::ENDED.write(&mut trailers);
                        Frame::trailers(trailers)
                    },
                    Frame::data,
                );
                Some(Ok(frame))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
