/* How the page asks the library: here by the server that it comes from. */

/* Why there is no answer: the server is gone, or the address is no longer its own. */
export class NoAnswer extends Error {}

export async function ask(request) {
  let response, answer;
  try {
    response = await fetch("respond", {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(request),
    });
    answer = await (response.ok ? response.json() : response.text());
  } catch {  // in the middle of the answer, too
    throw new NoAnswer("The server does not answer. What you write stays here, and it is asked again.");
  }
  if (response.status === 403) {
    throw new NoAnswer("The server has another address now: open the one that it printed. What you wrote is kept.");
  }
  if (!response.ok) throw new NoAnswer(answer);
  return answer;
}
