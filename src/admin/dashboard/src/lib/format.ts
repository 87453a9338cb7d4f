// Numbers and times as people read them.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });

export const NOTHING = "–";

export function count(n: number | null): string {
    return n === null ? NOTHING : whole.format(n);
}

/** "1 machine", "1,203 machines". */
export function counted(n: number, one: string, many = `${one}s`): string {
    return `${whole.format(n)} ${n === 1 ? one : many}`;
}

export function rate(perSecond: number | null): string {
    if (perSecond === null)
        return NOTHING;
    return perSecond < 100 ? tenths.format(perSecond) : whole.format(perSecond);
}

/** About three digits, and none behind a microsecond, which is as exact as the server is. */
export function milliseconds(ms: number | null): string {
    if (ms === null)
        return NOTHING;
    return ms >= 1000 ? `${decimals(ms / 1000)} s` : `${decimals(ms)} ms`;
}

function decimals(n: number): string {
    return n.toFixed(n < 1 ? 3 : n < 10 ? 2 : n < 100 ? 1 : 0);
}

/** For an axis, where numbers are round. */
export function roundNumber(n: number): string {
    return short.format(n);
}

export function roundMilliseconds(ms: number): string {
    return ms >= 1000 ? `${short.format(ms / 1000)} s` : `${short.format(ms)} ms`;
}

/** In one unit, or two where one would be coarse: "12 s", "4 min", "3 h 20 min", "12 d". */
export function duration(seconds: number): string {
    const s = Math.max(0, Math.floor(seconds));
    const minutes = Math.floor(s / 60);
    const hours = Math.floor(minutes / 60);

    if (s < 60)
        return `${s} s`;
    if (minutes < 60)
        return `${minutes} min`;
    if (hours < 10)
        return minutes % 60 === 0 ? `${hours} h` : `${hours} h ${minutes % 60} min`;
    if (hours < 48)
        return `${hours} h`;
    return `${Math.floor(hours / 24)} d`;
}

export function timeOfDay(unixSeconds: number): string {
    return clock.format(unixSeconds * 1000);
}

/** With the day when that is not today. */
export function moment(unixSeconds: number, nowSeconds: number): string {
    const text = day.format(unixSeconds * 1000);

    return text === day.format(nowSeconds * 1000) ? timeOfDay(unixSeconds)
                                                  : `${text}, ${timeOfDay(unixSeconds)}`;
}

export function isoTime(unixSeconds: number): string {
    return new Date(unixSeconds * 1000).toISOString();
}
