// A moment, as the time that has gone by since; the moment itself is there for who wants to know.
import { duration, isoTime, moment } from "../lib/format";
import { serverNow } from "../state/clock";

export function Since({ time }: { time: number }) {
    const now = serverNow.value;

    return (
        <time dateTime={isoTime(time)} title={moment(time, now)}>
            {duration(now - time)}
        </time>
    );
}

export function At({ time }: { time: number }) {
    return <time dateTime={isoTime(time)}>{moment(time, serverNow.value)}</time>;
}
