// A stand-in for the page: says whether the server is alive.
const answer = await fetch("/healthz");
document.getElementById("state").textContent = answer.ok ? "The server is alive." : "Not alive.";
