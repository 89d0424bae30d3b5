#include "textflag.h"

// siginfoHandler writes its siginfo_t, the second argument, to siginfoFD. It
// uses no stack, no g and no errno, so it may run anywhere. It returns into the
// vDSO, which makes rt_sigreturn.
TEXT ·siginfoHandler(SB),NOSPLIT|NOFRAME,$0
	MOVW	·siginfoFD(SB), R0
	MOVD	$128, R2
	MOVD	$64, R8 // write
	SVC
	RET

// func siginfoEntry() (handler, restorer uintptr)
TEXT ·siginfoEntry(SB),NOSPLIT,$0-16
	MOVD	$·siginfoHandler(SB), R0
	MOVD	R0, handler+0(FP)
	MOVD	ZR, restorer+8(FP)
	RET
