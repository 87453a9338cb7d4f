// One chart over time: draws a few lines with uPlot, and says the same in words below it.
import { useEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";

import { timeOfDay } from "../lib/format";
import type { SampleKey } from "../lib/history";
import { look, remPx } from "../state/look";
import { history, steps } from "../state/monitor";

export interface Line {
    key: SampleKey;
    label: string;
    /** A custom property of the style sheet. */
    colour: string;
    /** Lines are told apart by it where colours are not. */
    dash: number[];
}

interface ChartProps {
    title: string;
    lines: Line[];
    format: (value: number | null) => string;
    /** The same, of round numbers for the axis. */
    formatAxis?: (value: number) => string;
    /** For values that differ by orders of magnitude. None of them may be 0. */
    isLogarithmic?: boolean;
    minutes: number;
}

type Columns = [number[], ...(number | null)[][]];

const SYNC_KEY = "cliser";

const TIME_STEPS_S = [1, 2, 5, 10, 15, 30, 60].map((minutes) => minutes * 60);

// How often the words for screen readers change.
const SUMMARY_MS = 15_000;

export function Chart(props: ChartProps) {
    const { title, lines, format, minutes } = props;
    const place = useRef<HTMLDivElement>(null);
    const plot = useRef<uPlot | null>(null);
    const [cursor, setCursor] = useState<number | null>(null);
    void steps.value;
    const now = Date.now() / 1000;
    const columns = history.columns(lines.map((line) => line.key), now - minutes * 60);
    const summary = useSummary(title, lines, columns, format, minutes);

    useEffect(() => {
        const element = place.current!;
        const chart = new uPlot(optionsOf(element, props, setCursor), columns, element);
        plot.current = chart;
        const observer = new ResizeObserver(() => chart.setSize(sizeOf(element)));
        observer.observe(element);
        return () => {
            observer.disconnect();
            chart.destroy();
        };
    }, [look.value]);

    useEffect(() => {
        const chart = plot.current!;
        chart.batch(() => {
            chart.setData(columns, false);
            chart.setScale("x", { min: now - minutes * 60, max: now });
        });
    });

    return (
        <figure class="chart">
            <figcaption>
                <h3>{title}</h3>
                <Legend lines={lines} columns={columns} format={format} cursor={cursor} />
            </figcaption>
            <div ref={place} class="plot" role="img" aria-label={summary} />
        </figure>
    );
}

interface LegendProps {
    lines: Line[];
    columns: Columns;
    format: (value: number | null) => string;
    cursor: number | null;
}

/** The values under the pointer, or else the last ones. */
function Legend({ lines, columns, format, cursor }: LegendProps) {
    const at = cursor ?? columns[0].length - 1;
    const time = columns[0][at];

    return (
        <ul class="legend">
            {lines.map((line, i) => (
                <li key={line.key}>
                    <svg class={line.colour} viewBox="0 0 24 4" aria-hidden="true">
                        <line x1="0" y1="2" x2="24" y2="2" stroke-dasharray={line.dash.join(" ")} />
                    </svg>
                    {line.label} <b>{format(columns[i + 1]?.[at] ?? null)}</b>
                </li>
            ))}
            {cursor !== null && time !== undefined && <li>at {timeOfDay(time)}</li>}
        </ul>
    );
}

/** Kept for a while, so that a screen reader that is at it is not interrupted each second. */
function useSummary(title: string, lines: Line[], columns: Columns,
                    format: (value: number | null) => string, minutes: number): string {
    const kept = useRef({ text: "", atMs: -Infinity, minutes });
    const isOld = performance.now() - kept.current.atMs > SUMMARY_MS;

    if (isOld || kept.current.minutes !== minutes) {
        const parts = lines.map((line, i) => summaryOf(line.label, columns[i + 1] ?? [], format));
        kept.current = {
            text: `${title}, last ${minutes} minutes. ${parts.join(" ")}`,
            atMs: performance.now(),
            minutes,
        };
    }
    return kept.current.text;
}

function summaryOf(label: string, values: (number | null)[], format: (value: number | null) => string): string {
    const known = values.filter((value): value is number => value !== null);

    if (known.length === 0)
        return `${label}: no data yet.`;
    const low = known.reduce((a, b) => Math.min(a, b));
    const high = known.reduce((a, b) => Math.max(a, b));
    return `${label}: now ${format(known.at(-1)!)}, lowest ${format(low)}, highest ${format(high)}.`;
}

function sizeOf(place: HTMLElement): { width: number; height: number } {
    return { width: place.clientWidth, height: place.clientHeight };
}

function optionsOf(place: HTMLElement, { lines, format, formatAxis = format, isLogarithmic }: ChartProps,
                   setCursor: (index: number | null) => void): uPlot.Options {
    const style = getComputedStyle(place);
    const property = (name: string): string => style.getPropertyValue(name).trim();
    const rem = remPx();
    const axis = {
        stroke: property("--muted"),
        grid: { stroke: property("--line"), width: 1 },
        ticks: { show: false },
        font: `${Math.round(rem * 0.75)}px ${property("--font")}`,
    };

    return {
        ...sizeOf(place),
        padding: [rem * 0.5, rem, 0, 0],
        legend: { show: false },
        cursor: { sync: { key: SYNC_KEY }, y: false, drag: { x: false, y: false }, points: { size: 6 } },
        scales: { y: isLogarithmic ? { distr: 3 } : { range: fromZero } },
        axes: [
            {
                ...axis, space: rem * 5, size: rem * 1.75, incrs: TIME_STEPS_S,
                values: (_, times) => times.map(timeOfMinute),
            },
            {
                ...axis, space: rem * 2, size: rem * 3.75, filter: (_, values) => values,
                values: (_, values) => values.map(formatAxis),
                ...isLogarithmic ? { splits: decades } : {},
            },
        ],
        series: [{}, ...lines.map((line) => ({
            label: line.label,
            stroke: property(`--${line.colour}`),
            width: Math.max(1.5, rem / 9),
            dash: line.dash,
            points: { show: false },
        }))],
        hooks: { setCursor: [(chart) => setCursor(chart.cursor.idx ?? null)] },
    };
}

/** Without a line that is above 0 the axis still wants some height. */
function fromZero(_: uPlot, _low: number, high: number): [number, number] {
    return [0, high > 0 ? high * 1.1 : 1];
}

function decades(_: uPlot, _axis: number, low: number, high: number): number[] {
    const values = [];

    // A little less than nothing, since logarithms are not exact.
    for (let n = Math.ceil(Math.log10(low) - 1e-9); n <= Math.log10(high) + 1e-9; n++)
        values.push(10 ** n);
    return values;
}

/** All steps are whole minutes. */
function timeOfMinute(time: number): string {
    return timeOfDay(time).slice(0, 5);
}
